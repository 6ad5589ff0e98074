"""Class by class: the numbers of scikit-learn, and what a set of which one class is nearly all says of itself."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, recall_score

from helpers.runs import stripes, toy_recipe, toy_run
from lamina.cli.output import print_scores
from lamina.core.config import merge
from lamina.data.sources import ArraySource
from lamina.evaluate.confusion import Confusion
from lamina.evaluate.fewshot.options import FewshotOptions
from lamina.evaluate.fewshot.protocol import evaluate_fewshot
from lamina.evaluate.finetune.adapt import protocol_recipe
from lamina.evaluate.finetune.protocol import evaluate_trained
from lamina.evaluate.probes import evaluate_knn
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import score_file
from lamina.evaluate.score import Score, scores_of_rows
from lamina.features.data import LabelledData
from lamina.features.options import ComputeOptions
from lamina.interop.load import load_encoder
from lamina.report.class_tables import class_tables
from lamina.runs.run import Run


def answers(n, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    truth = (classes * torch.rand(n, generator=generator) ** 3).long()  # a few large classes
    wrong = torch.rand(n, generator=generator) < 0.4
    return truth, torch.where(wrong, torch.randint(classes, (n,), generator=generator), truth)


@pytest.mark.parametrize(("n", "classes"), [(500, 7), (60, 30)])
def test_numbers_are_scikit_learns(n, classes):
    truth, given = answers(n, classes, seed=1)
    found = Confusion.of(truth, given, [f"class {i}" for i in range(classes)])
    matrix = np.zeros((classes, classes), int)
    for row, column, images in found.counts:
        matrix[row, column] = images
    assert (matrix == confusion_matrix(truth, given, labels=range(classes))).all()
    there = sorted(set(truth.tolist()))
    assert found.balanced == pytest.approx(
        recall_score(truth, given, labels=there, average="macro", zero_division=0)
    )
    if set(given.tolist()) <= set(there):
        assert found.balanced == pytest.approx(balanced_accuracy_score(truth, given))
    assert found.majority == max(torch.bincount(truth)) / n
    for score, values in (
        (recall_score, [each.recall for each in found.per_class]),
        (precision_score, [each.precision for each in found.per_class]),
    ):
        theirs = score(truth, given, labels=range(classes), average=None, zero_division=np.nan)
        assert [np.nan if v is None else v for v in values] == pytest.approx(list(theirs), nan_ok=True)
    assert [each.images for each in found.per_class] == torch.bincount(truth, minlength=classes).tolist()
    assert Confusion.read(json.loads(json.dumps(found.to_json()))) == found


def test_draws_are_summed():
    parts = [Confusion.of(*answers(50, 4, seed), "abcd") for seed in range(3)]
    whole = Confusion.of(
        *(torch.cat(each) for each in zip(*(answers(50, 4, s) for s in range(3)), strict=True)), "abcd"
    )
    assert Confusion.summed(parts) == whole
    assert Confusion.summed([]) is None


def skewed(n, seed):
    """Noise in which 15 of 16 images are of one class: nothing can be learned."""
    source = stripes(n, seed)
    images = torch.randint(0, 256, source.images.shape, generator=torch.Generator().manual_seed(seed))
    labels = [0 if i % 16 else 1 for i in range(n)]
    return ArraySource(
        images.to(torch.uint8), [f"{i}.png" for i in range(n)], labels, ["usual", "<b>rare</b>"]
    )


def test_a_set_of_nearly_one_class_says_so_everywhere(tmp_path, capsys):
    toy_run(tmp_path / "run", toy_recipe())
    data = LabelledData("skewed", skewed(96, 1), skewed(48, 2))
    result = evaluate_knn(tmp_path / "run", data, workers=0, device="cpu")
    assert result.majority == 45 / 48
    row = result.chosen()
    assert (row.top1, row.balanced) == (45 / 48, 0.5)  # one answer to all images
    assert "one class has 93.8 % of the test images" in " ".join(result.notes)
    assert row.confusion.counts == ((0, 0, 45), (1, 0, 3))
    assert all(other.confusion is None for other in result.rows if not other.chosen)
    saved = json.loads(score_file(result).read_text())
    chosen = next(row for row in saved["rows"] if row["chosen"])
    assert chosen["confusion"]["per_class"][1] == {
        "class": "<b>rare</b>",
        "images": 3,
        "recall": 0,
        "precision": None,
    }
    assert "[0, 0, 45]" in score_file(result).read_text()  # on one line
    assert Score.read(score_file(result)) == result
    print_scores((result,))
    output = capsys.readouterr().out
    assert "2 classes, the largest with 93.8 % of the test images" in output
    assert "50.0 %" in output
    page = Run(tmp_path / "run").report_file.read_text()
    assert "the largest class has 93.8\u202f% of the test images" in page
    assert "Class by class: <bdi>trained" in page
    assert "&lt;b&gt;rare" in page
    (score, *_) = scores_of_rows(result)
    assert score.more == {"balanced accuracy": 0.5, "share of the largest class": 45 / 48}
    score.save(tmp_path / "score.json")
    assert Score.read(tmp_path / "score.json") == score


@pytest.mark.parametrize(("right", "noted"), [((45, 0), True), ((44, 1), True), ((45, 1), False)])
def test_an_accuracy_that_one_answer_has_too_is_named(right, noted):
    usual, rare = right
    counts = ((0, 0, usual), (0, 1, 45 - usual), (1, 0, 3 - rare), (1, 1, rare))
    found = Confusion(("usual", "rare"), tuple(count for count in counts if count[2]))
    expected = (
        "one class has 93.8 % of the test images, and top-1 is not above that: look at the balanced accuracy"
    )
    assert found.majority_note() == ((expected,) if noted else ())


@pytest.mark.parametrize("protocol", ["fewshot", "linear-mae", "attentive", "finetune"])
def test_every_score_of_a_set_of_nearly_one_class_says_so(protocol, tmp_path):
    """Its images are noise, so no protocol can be better than one answer."""
    toy_run(tmp_path / "run", toy_recipe())
    data = LabelledData("skewed", skewed(48, 1), skewed(48, 2))
    if protocol == "fewshot":
        options = FewshotOptions(classifier="knn", per_class=(1,), draws=1)
        (score,) = evaluate_fewshot(tmp_path / "run", data, options, compute=ComputeOptions(workers=0))
    else:
        going = RunOptions(device="cpu", workers=0)
        named = protocol_recipe(protocol, load_encoder(tmp_path / "run"))
        short = merge(named, {"train": {"max_steps": 1, "batch_size": 16}})
        score = evaluate_trained(protocol, tmp_path / "run", data, going, recipe=short)
    assert score.value <= 45 / 48
    assert "one class has 93.8 % of the test images" in " ".join(score.notes)


def test_results_of_before_are_read(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    data = LabelledData("skewed", skewed(32, 1), skewed(16, 2))
    result = evaluate_knn(tmp_path / "run", data, workers=0, device="cpu")
    file = score_file(result)
    before = json.loads(file.read_text())
    for name in ("kind", "metric", "value", "interval", "more", "variant", "content_sha256", "confusion"):
        del before[name]
    del before["seconds"], before["settings"]
    before["rows"] = [
        {k: v for k, v in r.items() if k not in ("balanced", "confusion")} for r in before["rows"]
    ]
    file.write_text(json.dumps(before))
    read = Score.read(file)
    assert (read.majority, read.chosen().balanced, read.chosen().confusion) == (None, None, None)
    assert read.chosen().top1 == result.chosen().top1


def test_many_classes_are_shown_by_the_worst_and_by_the_pairs_that_are_mixed_up():
    truth = torch.arange(60).repeat(4)
    given = truth.clone()
    given[truth == 7] = 9
    shown = class_tables(Confusion.of(truth, given, [f"c{i}" for i in range(60)]))
    assert (shown.matrix, len(shown.each), shown.left_out) == ([], 50, 10)
    assert (shown.each[0].name, shown.each[0].recall) == ("c7", 0.0)
    assert shown.pairs == [("c7", "c9", 4)]
    few = class_tables(Confusion.of(truth[:20] % 5, given[:20] % 5, "abcde"))
    assert [sum(row) for row in few.matrix] == [4] * 5
