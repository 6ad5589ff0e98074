"""Few labels: draws are balanced, seeded and nested; lists are found; scores are means over draws."""

from dataclasses import replace

import pytest
import torch

from helpers.runs import stripes, stripes_data, toy_recipe, toy_run
from lamina.api import recipe
from lamina.core.errors import LaminaError
from lamina.core.intervals import SHARE, estimate, wilson_interval
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import AS_STORED
from lamina.data.sources import ArraySource, Subset
from lamina.evaluate.fewshot import protocol as fewshot
from lamina.evaluate.fewshot.options import FewshotOptions
from lamina.evaluate.fewshot.protocol import _variant, evaluate_fewshot
from lamina.evaluate.fewshot.subsets import draw_per_class, labelled_subset, listed, per_class_of
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import score_file
from lamina.evaluate.robustness import protocol as robustness
from lamina.evaluate.score import Score
from lamina.features.data import LabelledData
from lamina.features.options import ComputeOptions
from lamina.interop.load import load_encoder

LABELS = [0] * 50 + [1] * 20 + [2] * 3


def test_draws_are_balanced_seeded_and_nested():
    few_of_each, more = draw_per_class(LABELS, 3, seed=1), draw_per_class(LABELS, 10, seed=1)
    counts = [torch.bincount(torch.tensor(LABELS)[drawn]).tolist() for drawn in (few_of_each, more)]
    assert counts == [[3, 3, 3], [10, 10, 3]]  # all of a class that has no more
    assert set(few_of_each) <= set(more)
    assert len(set(more)) == len(more)
    assert draw_per_class(LABELS, 3, seed=1) == few_of_each
    others = [draw_per_class(LABELS, 3, seed=2), draw_per_class(LABELS, 3, seed=1, draw=1)]
    assert all(other != few_of_each for other in others)
    with pytest.raises(LaminaError, match="1 or more"):
        draw_per_class(LABELS, 0, seed=0)


def test_every_image_of_a_class_is_as_likely():
    hits = torch.zeros(len(LABELS))
    for draw in range(600):
        hits[draw_per_class(LABELS, 5, 0, draw)] += 1
    assert (hits[:50] - 60).abs().max() < 4 * (600 * 0.1 * 0.9) ** 0.5  # binomial
    assert (hits[-3:] == 600).all()


def test_shares_are_those_of_simclrs_lists():
    imagenet = [c for c in range(1000) for _ in range(1281)]
    assert per_class_of(imagenet, 0.01) == 13
    assert per_class_of(imagenet, 0.1) == 128
    assert per_class_of(LABELS, 0.001) == 1
    with pytest.raises(LaminaError, match="between 0 and 1"):
        per_class_of(LABELS, 1.0)


def test_an_official_list_is_found_by_file_names(tmp_path):
    source = stripes(12, seed=0)
    file = tmp_path / "1percent.txt"
    file.write_text("\ufefftrain/x/image-7.png\nimage-2.png\n\n", encoding="utf-8")
    assert listed(source, file) == [2, 7]
    file.write_text("image-2.png\nimage-99.png\n")
    for content, sentence in ((file, "1 of 2 images"), (tmp_path / "none.txt", "cannot be read")):
        with pytest.raises(LaminaError, match=sentence):
            listed(source, content)
    file.write_text("\n")
    with pytest.raises(LaminaError, match="names no image"):
        listed(source, file)
    names = ["a/1.png", "b/1.png", "b/2.png"]
    twice = ArraySource(torch.rand(3, 3, 8, 8), names, [0, 1, 1], ["a", "b"])
    file.write_text("b/2.png\n")
    assert listed(twice, file) == [2]
    file.write_text("b/1.png\n")
    with pytest.raises(LaminaError, match=r"several training images are called 1\.png"):
        listed(twice, file)


def test_few_labels_of_one_class_teach_nothing():
    with pytest.raises(LaminaError, match="one class"):
        labelled_subset(stripes(12, seed=0), [0, 3, 6])
    assert labelled_subset(stripes(12, seed=0), [0, 1]).class_names == ("rows", "columns", "none")


@pytest.mark.parametrize("by", ["linear", "knn"])
def test_a_score_is_the_mean_of_its_draws(by, tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    options = FewshotOptions(classifier=by, per_class=(1, 4), shares=(0.5,), draws=3)
    messages = []
    scores = evaluate_fewshot(
        tmp_path / "run",
        stripes_data(60, 30),
        options,
        compute=ComputeOptions(workers=0),
        say=messages.append,
    )
    assert [score.protocol for score in scores] == [f"fewshot-{by}-{n}" for n in ("1", "4", "50%")]
    assert [score.n_train for score in scores] == [3, 12, 30]
    assert len(messages) == 9
    for score in scores:
        values = [score.more[f"draw {i}"] for i in range(3)]
        mean = estimate(values, SHARE)
        assert score.value == pytest.approx(mean.mean)
        alike = (
            len(set(values)) == 1
        )  # draws that agree say nothing of the spread: Wilson's of the test images
        expected = wilson_interval(round(30 * mean.mean), 30) if alike else mean.interval
        assert score.interval == pytest.approx(expected)
        right = sum(n for true, given, n in score.confusion.counts if true == given)
        assert sum(n for *_, n in score.confusion.counts) == 3 * 30  # all draws
        assert right / 90 == pytest.approx(mean.mean)
        assert score.more["share of the largest class"] == pytest.approx(1 / 3)
        assert score_file(score).is_file()
    assert scores[2].value > 0.5  # three classes that can be told apart


class Torn(ArraySource):
    """The fourth image cannot be read."""

    def inspect(self, i, how=AS_STORED):
        if i == 3:
            raise Unreadable(Reason.BROKEN)
        return super().inspect(i, how)


def test_images_that_cannot_be_read_are_no_test_images_and_are_named(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    whole = stripes(12, seed=2)
    torn = Torn(whole.images, [whole.name(i) for i in range(12)], whole.labels, whole.class_names)
    options = FewshotOptions(classifier="knn", per_class=(2,), draws=2)
    data = LabelledData("torn", stripes(18, seed=1), torn)
    (score,) = evaluate_fewshot(tmp_path / "run", data, options, compute=ComputeOptions(workers=0))
    assert (score.n_train, score.n_test) == (6, 11)
    note = "1 of 12 test images could not be read: 1 truncated or corrupt; the first is image-3.png"
    assert note in score.notes


def test_the_number_of_draws_is_told_where_it_is_not_the_usual_one(tmp_path):
    file = tmp_path / "1percent.txt"
    options = FewshotOptions(draws=2, lists=(file,))
    assert _variant("cls", 2, options) == "cls, 2 draws"
    assert _variant("", 1, options) == ""  # a list, or all images
    assert _variant("", 5, FewshotOptions()) == ""
    with pytest.raises(LaminaError, match="two lists are called 1percent"):
        FewshotOptions(lists=(file, tmp_path / "other" / "1percent.txt"))


def test_two_lists_of_one_name_have_a_score_each(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    files = []
    for folder, images in (("l1", (0, 1, 2)), ("l2", (3, 4, 5)), ("l3", (2, 1, 0))):
        file = tmp_path / folder / "one.txt"
        file.parent.mkdir()
        file.write_text("".join(f"image-{i}.png\n" for i in images))
        options = FewshotOptions(classifier="knn", per_class=(), lists=(file,))
        (score,) = evaluate_fewshot(
            tmp_path / "run", stripes_data(24, 9), options, compute=ComputeOptions(workers=0)
        )
        files.append(score_file(score))
    assert files[0] != files[1]
    assert files[0] == files[2]  # the same images in another order
    assert len(list((tmp_path / "run" / "results").iterdir())) == 2


def test_more_images_than_there_are_is_one_draw_of_all_with_an_interval_of_its_own(tmp_path):
    """fewshot-linear-100 of 24 images: five draws of all of them are one, and "77.1 to 77.1" is no interval."""
    toy_run(tmp_path / "run", toy_recipe())
    data = stripes_data(24, 24)
    options, messages = FewshotOptions(classifier="knn", per_class=(2, 100), shares=(), draws=5), []
    computing = ComputeOptions(workers=0)
    few_each, whole = evaluate_fewshot(
        tmp_path / "run", data, options, compute=computing, say=messages.append
    )
    assert len(messages) == 5 + 1
    assert [name for name in whole.more if name.startswith("draw")] == ["draw 0"]
    assert (whole.n_train, few_each.n_train) == (24, 6)
    right = round(24 * whole.value)
    assert whole.interval == wilson_interval(right, 24)
    assert whole.interval[0] < whole.value
    note = "3 of 3 classes have fewer than 100 images and give all: 24 in all; every draw is the same, so there is one"
    assert note in whole.notes
    assert not any("fewer than" in note for note in few_each.notes)
    uneven = LabelledData("uneven", Subset(data.train, [*range(20), 21]), data.test)  # classes of 8, 7 and 6
    (score,) = evaluate_fewshot(
        tmp_path / "run", uneven, FewshotOptions(classifier="knn", per_class=(7,), draws=2), compute=computing
    )
    assert "1 of 3 classes have fewer than 7 images and give all: 20 in all" in score.notes


def test_an_interruption_says_which_budgets_are_kept_and_keeps_them(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    messages = []

    def say(line):
        messages.append(line)
        if len(messages) == 3:
            raise KeyboardInterrupt

    options = FewshotOptions(classifier="knn", per_class=(2, 4, 6), draws=2)
    with pytest.raises(KeyboardInterrupt) as stop:
        evaluate_fewshot(
            tmp_path / "run", stripes_data(24, 9), options, compute=ComputeOptions(workers=0), say=say
        )
    (note,) = stop.value.__notes__
    results = tmp_path / "run" / "results"
    assert note == (
        f"scores of 2 are finished and kept in {results}; still to do: 4, 6, where draws of a budget start anew"
    )
    (kept,) = results.iterdir()
    assert Score.read(kept).protocol == "fewshot-knn-2"


def test_a_draw_sees_no_test_image(tmp_path, monkeypatch):
    """What is fitted on is the drawn rows alone: with other test images the same rows are fitted."""
    from lamina.evaluate.fewshot import protocol as fewshot

    toy_run(tmp_path / "run", toy_recipe())
    fitted, plain = [], fewshot._predict

    def watched(by, bank, labels, queries):
        fitted.append((bank.clone(), labels.clone()))
        return plain(by, bank, labels, queries)

    monkeypatch.setattr(fewshot, "_predict", watched)
    train = stripes(30, seed=1)
    for test in (stripes(12, seed=2), stripes(12, seed=3)):
        evaluate_fewshot(
            tmp_path / "run",
            LabelledData("stripes", train, test),
            FewshotOptions(per_class=(2,), draws=2),
            compute=ComputeOptions(workers=0),
        )
    assert len(fitted) == 4
    for first, second in zip(fitted[:2], fitted[2:], strict=True):
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
    assert [len(labels) for _, labels in fitted] == [6] * 4


@pytest.mark.parametrize("protocol", [fewshot, robustness])
def test_device_and_workers_are_those_of_the_run_options(protocol, monkeypatch):
    def stop(*given, **named):
        raise InterruptedError(next(each for each in given if isinstance(each, ComputeOptions)))

    monkeypatch.setattr(fewshot, "pooled_features", stop)
    monkeypatch.setattr(robustness, "open_classifier", stop)
    evaluate = evaluate_fewshot if protocol is fewshot else robustness.evaluate_robustness
    backbone = load_encoder("timm/vit_tiny_patch16_224", pretrained=False)
    with pytest.raises(InterruptedError) as found:
        evaluate(backbone, "sample:photos", run_options=RunOptions(device="cpu", workers=0))
    assert found.value.args == (ComputeOptions(workers=0, device="cpu"),)


def test_fine_tuning_on_a_draw(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    chosen = recipe("finetune")
    chosen = replace(
        chosen,
        train=replace(chosen.train, max_steps=2, batch_size=4),
        monitor=replace(chosen.monitor, images=0),
    )
    options = FewshotOptions(classifier="finetune", per_class=(2,), draws=2)
    going = RunOptions(out=tmp_path / "out", device="cpu", workers=0)
    (score,) = evaluate_fewshot(tmp_path / "run", stripes_data(30, 9), options, going, recipe=chosen)
    assert score.protocol == "fewshot-finetune-2"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2-draw0", "2-draw1"]
    assert score.n_train == 6


def test_a_subset_keeps_its_classes():
    assert Subset(stripes(9, seed=0), [0, 1]).labels == [0, 1]


def test_the_pool_of_a_probe_is_refused_where_the_encoder_is_trained():
    with pytest.raises(LaminaError, match="pool has no effect where classifier is finetune"):
        evaluate_fewshot("nowhere", "nothing", FewshotOptions(classifier="finetune", pool="cls"))
