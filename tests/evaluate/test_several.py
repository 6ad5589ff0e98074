"""Images with several labels each, end to end: probes, fine-tuning, what they leave, and who refuses them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

import lamina
from helpers.classifiers import options_of, task_of
from helpers.runs import stripes, toy_recipe, toy_run
from lamina.api import recipe
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.loading.loader import eval_batches
from lamina.data.options import DataOptions
from lamina.data.sources import ArraySource, Subset
from lamina.evaluate.compare.run import compare
from lamina.evaluate.fewshot.options import FewshotOptions
from lamina.evaluate.fewshot.protocol import evaluate_fewshot
from lamina.evaluate.finetune.protocol import evaluate_trained
from lamina.evaluate.load_classifier import open_classifier
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.results import Row
from lamina.evaluate.score import Score
from lamina.features.data import LabelledData
from lamina.features.embed import embed
from lamina.features.options import ComputeOptions, FeatureOptions, LinearOptions
from lamina.interop.export_run import export_run
from lamina.report.page import write_report
from lamina.runs.run import Run
from lamina.supervised.classifier import Supervised
from lamina.supervised.mixup import mix_several
from lamina.supervised.options import SupervisedOptions

CPU = RunOptions(device="cpu", workers=0)
HERE = ComputeOptions(workers=0, device="cpu")


def coloured(n: int, seed: int) -> ArraySource:
    """Each of three labels brightens one channel, alone or together with others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(n, 3, generator=generator) < 0.4
    images = 0.1 + 0.7 * labels[:, :, None, None] + 0.1 * torch.rand(n, 3, 32, 48, generator=generator)
    names = [f"{seed}-{i}.png" for i in range(n)]
    return ArraySource(images, names, class_names=["red", "green", "blue"], multi_labels=labels.numpy())


@pytest.fixture(scope="module")
def data() -> LabelledData:
    return LabelledData("colours", coloured(60, 1), coloured(40, 2))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    toy_run(folder, toy_recipe())
    return folder


def test_a_source_has_labels_or_several_of_them() -> None:
    source = coloured(20, 1)
    assert source.labels is None
    assert "evaluate linear" in source.no_labels
    part = Subset(Subset(source, range(2, 20, 2)), [3, 0])
    assert np.array_equal(part.multi_labels, source.multi_labels[[8, 2]])
    other = ArraySource(source.images, [source.name(i) for i in range(20)], class_names=source.class_names,
                        multi_labels=~source.multi_labels)  # fmt: skip
    assert source.identity() != other.identity()
    counts = check(source, DataOptions(workers=0)).classes
    assert counts == dict(zip(source.class_names, source.multi_labels.sum(0).tolist(), strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_bring_them(workers: int) -> None:
    source = coloured(10, 1)
    batches = list(eval_batches(source, (32, 48), 3, 4, workers))
    found = torch.cat([batch.multi_labels for batch in batches])
    assert torch.equal(found, torch.from_numpy(source.multi_labels.copy()))
    assert all(batch.labels is None for batch in batches)
    assert [len(part.multi_labels) for part in batches[0].split(3)] == [3, 1]


@pytest.mark.parametrize("evaluate", [evaluate_linear, evaluate_knn])
def test_a_probe_measures_the_mean_average_precision(evaluate, run, data, tmp_path):
    options = {"options": LinearOptions(c=(1.0, 10.0))} if evaluate is evaluate_linear else {}
    score = evaluate(
        run, data, features=FeatureOptions(pools=("mean",)), workers=0, cache=tmp_path, **options
    )
    assert score.metric == "mAP"
    assert score.value > 0.9 > score.prevalence
    truth = data.test.multi_labels
    assert score.prevalence == pytest.approx(truth.mean())
    labels = {f"average precision of {name}" for name in data.classes}
    assert set(score.of_labels) == labels
    assert np.mean(list(score.of_labels.values())) == pytest.approx(score.value)
    low, high = score.interval
    assert low <= score.value <= high + 1e-9
    assert Score.of(json.loads(json.dumps(score.to_json()))) == score
    again = evaluate(
        run, data, features=FeatureOptions(pools=("mean",)), workers=0, cache=tmp_path, **options
    )
    assert again == score  # from the cache, labels included
    assert again.timing.images == 0
    page = Path(write_report([run], tmp_path / "page.html")).read_text()
    assert "Mean average precision of the chosen rows" in page
    assert "average precision of red" in page


def test_a_probe_that_learns_nothing_says_so(run):
    """Images that are all the same have the same scores, whose mAP is the mean prevalence."""
    known = np.random.default_rng(0).random((2, 40, 2)) < 0.5
    same = [
        ArraySource(torch.full((40, 3, 32, 48), 0.4), [f"{part}-{i}" for i in range(40)],
                    class_names=("a", "b"), multi_labels=each)
        for part, each in enumerate(known)
    ]  # fmt: skip
    score = evaluate_knn(run, LabelledData("same", *same), workers=0)
    assert score.value == pytest.approx(known[1].mean())
    assert f"not above the mean prevalence, {100 * known[1].mean():.1f} %" in " ".join(score.notes)


def short(steps: int, **supervised):
    chosen = recipe("finetune")
    return replace(
        chosen,
        optim=replace(chosen.optim, warmup_epochs=0.0, base_lr=1e-2),
        train=replace(chosen.train, max_steps=steps, batch_size=20),
        monitor=replace(chosen.monitor, images=0),
        supervised=replace(chosen.supervised, **supervised),
    )


def test_fine_tuning_learns_several_labels_and_leaves_a_classifier(run, data, tmp_path):
    options = replace(CPU, out=tmp_path / "tuned")
    score = evaluate_trained("finetune", run, data, options, recipe=short(8, mixup=0.0, cutmix=0.0))
    trained = open_classifier(tmp_path / "tuned", compute=HERE)
    assert (trained.several, trained.classes) == (True, ("red", "green", "blue"))
    found = trained.score_several(data.test, HERE)
    truth, scores = data.test.multi_labels, found.scores.numpy()
    expected = average_precision_score(truth, scores, average="macro")
    assert score.value == pytest.approx(expected)
    assert score.more["mean prevalence"] == pytest.approx(truth.mean())
    assert expected > truth.mean() + 0.1
    with pytest.raises(LaminaError, match="gives each image any number of labels"):
        trained.predict(stripes(6, 1), HERE)
    exported = export_run(tmp_path / "tuned", tmp_path / "out", to="lamina")
    again = open_classifier(exported.weights, compute=HERE)
    assert again.several
    assert torch.equal(again.score_several(data.test, HERE).scores, found.scores)


@pytest.mark.parametrize("protocol", ["linear-mae", "attentive"])
def test_probes_that_are_trained_learn_several_labels(protocol, run, data, tmp_path):
    chosen = recipe(protocol)
    chosen = replace(
        chosen,
        optim=replace(chosen.optim, warmup_epochs=0.0),
        train=replace(chosen.train, max_steps=4, batch_size=20),
    )
    score = evaluate_trained(protocol, run, data, replace(CPU, out=tmp_path / "probe"), recipe=chosen)
    trained = open_classifier(tmp_path / "probe", compute=HERE)
    scores = trained.score_several(data.test, HERE).scores.numpy()
    truth = data.test.multi_labels
    assert score.metric == "mAP"
    assert score.value == pytest.approx(average_precision_score(truth, scores, average="macro"))
    assert score.more["mean prevalence"] == pytest.approx(truth.mean())


def test_supervised_pre_training_learns_several_labels(tmp_path):
    options = {"encoder.width": 24, "encoder.depth": 2, "encoder.heads": 2, "fusion.layers": "all"}
    lamina.pretrain(
        coloured(20, 1), tmp_path / "run", "deit-small", image_size=(32, 48), patch_size=16, batch_size=10,
        max_steps=2, workers=0, device="cpu", options=options,
    )  # fmt: skip
    run = Run(tmp_path / "run")
    assert run.recipe().labels.several
    assert run.recipe().labels.classes == ("red", "green", "blue")
    row = json.loads(run.metrics_file.read_text().splitlines()[0])
    assert row["loss"] == pytest.approx(np.log(2), abs=0.1)  # binary cross-entropy of a head that begins at 0


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda run, data, out: evaluate_fewshot(str(run), data, FewshotOptions(per_class=(1,)), CPU),
        lambda run, data, out: compare([str(run)], data, out),
        lambda run, data, out: evaluate_linear(run, LabelledData("one", stripes(9, 1), data.test)),
    ],
)
def test_others_refuse_them_in_one_line_that_says_who_takes_them(evaluate, run, data, tmp_path):
    with pytest.raises(LaminaError, match="lamina evaluate linear") as error:
        evaluate(run, data, tmp_path)
    assert "\n" not in str(error.value)


def test_embed_writes_them(run, tmp_path):
    source = coloured(6, 3)
    embed(run, source, tmp_path / "e.npz", workers=0, device="cpu")
    with np.load(tmp_path / "e.npz") as content:
        assert np.array_equal(content["labels"], source.multi_labels)
        assert content["class_names"].tolist() == ["red", "green", "blue"]
    embed(run, source, tmp_path / "e.csv", workers=0, device="cpu")
    lines = (tmp_path / "e.csv").read_text().splitlines()[1:]
    expected = [";".join(np.array(source.class_names)[row]) for row in source.multi_labels]
    assert [line.split(",")[1] for line in lines] == expected


# The loss


def several_task(**options) -> Supervised:
    single = task_of(options_of("cls"), classes=3)
    task = Supervised(single.encoder, single.fusion, 3, SupervisedOptions(**options), several=True)
    return task.double()


def test_the_loss_is_the_binary_cross_entropy_of_each_label():
    task = several_task(mixup=0.0, cutmix=0.0, smoothing=0.2).eval()
    images = torch.rand(4, 3, 16, 24).double()
    labels = torch.rand(4, 3) < 0.5
    batch = Batch(images, multi_labels=labels)
    logits = task.logits(images).double()
    shares = logits.sigmoid()
    exact = -(shares.log() * labels + (1 - shares).log() * ~labels).mean()
    torch.testing.assert_close(task(batch)["loss"].double(), exact, rtol=1e-5, atol=1e-6)
    task.train()
    torch.manual_seed(0)
    smoothed = F.binary_cross_entropy_with_logits(logits, labels.double() * 0.8 + 0.1)
    torch.testing.assert_close(task(batch)["loss"].double(), smoothed, rtol=1e-4, atol=1e-5)


def test_labels_are_mixed_as_the_images_are():
    labels = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    expected = torch.tensor([[0.7, 0.7, 0.0], [0.0, 1.0, 0.0], [0.3, 0.3, 0.0]])
    torch.testing.assert_close(mix_several(labels, 0.7, 0.0), expected)
    torch.testing.assert_close(mix_several(labels, 1.0, 0.1), labels * 0.9 + 0.05)


def test_what_does_not_fit_is_one_line():
    task = several_task()
    images = torch.rand(2, 3, 16, 24).double()
    for batch, words in (
        (Batch(images, labels=torch.zeros(2, dtype=torch.int64)), "needs labels"),
        (Batch(images, multi_labels=torch.zeros(2, 5, dtype=torch.bool)), "5 labels for 3 classes"),
    ):
        with pytest.raises(LaminaError, match=words):
            task(batch)
    single = task_of(options_of("distilled"), classes=3)
    with pytest.raises(LaminaError, match="leave out the teacher"):
        Supervised(single.encoder, single.fusion, 3, None, torch.nn.Identity(), several=True)


def test_rows_of_earlier_versions_have_no_further_numbers():
    assert Row.of({"encoder": "trained", "top1": 0.5}).more == {}
