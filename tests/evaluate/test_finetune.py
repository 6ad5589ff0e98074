"""Probes and fine-tuning from a run: separable features, chance, exact resume, and what is left on disk."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.runs import stripes, stripes_data, toy_recipe, toy_run
from lamina.api import recipe
from lamina.core.errors import LaminaError
from lamina.data.sources import ArraySource
from lamina.evaluate.finetune.adapt import adapt_recipe, classifier_recipe, protocol_recipe
from lamina.evaluate.finetune.protocol import _variant, evaluate_trained
from lamina.evaluate.predictions import classify
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import score_file
from lamina.evaluate.score import Score, Unfinished
from lamina.features.data import LabelledData
from lamina.interop.export_classifier import load_supervised
from lamina.interop.export_run import export_run
from lamina.interop.load import load_encoder
from lamina.recipes.recipe import Recipe
from lamina.runs.run import load_task
from lamina.train import checkpoint
from lamina.train.callbacks import Callback

CPU = RunOptions(device="cpu", workers=0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    toy_run(tmp_path / "run", toy_recipe())
    return tmp_path / "run"


def short(name: str, steps: int, **optim: float) -> Recipe:
    """A protocol at some steps of 20 images."""
    chosen = recipe(name)
    return replace(
        chosen,
        optim=replace(chosen.optim, warmup_epochs=0.0, **optim),
        train=replace(chosen.train, max_steps=steps, batch_size=20, log_every_steps=2),
        monitor=replace(chosen.monitor, images=0),
    )


def coloured(n: int, seed: int, shuffled: bool = False) -> ArraySource:
    """Three classes, each of one colour: features of any encoder, trained or not, tell them apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.zeros(n, 3, 32, 48)
    images[torch.arange(n), labels] = 0.9
    images += 0.1 * torch.rand(images.shape, generator=generator)
    if shuffled:
        labels = labels[torch.randperm(n, generator=generator)]
    return ArraySource(images, [f"{i}.png" for i in range(n)], labels.tolist(), ["r", "g", "b"])


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_linear_probe_finds_what_is_linear_and_nothing_where_labels_mean_nothing(run, shuffled):
    data = LabelledData("colours", coloured(60, 1, shuffled), coloured(60, 2, shuffled))
    score = evaluate_trained("linear-mae", run, data, CPU, recipe=short("linear-mae", 60, base_lr=80.0))
    if shuffled:
        low, high = score.interval
        assert low < 1 / 3 < high
    else:
        assert score.value == 1


def test_an_attentive_probe_finds_a_patch_that_the_mean_hides(run):
    """The class is the colour of one patch of 24; the others are noise of all colours."""

    def one_patch(n: int, seed: int) -> ArraySource:
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(n, 3, 4, 6, generator=generator).repeat_interleave(8, 2).repeat_interleave(8, 3)
        labels = torch.arange(n) % 2
        place = torch.randint(0, 24, (n,), generator=generator)
        for i in range(n):
            y, x = 8 * int(place[i] // 6), 8 * int(place[i] % 6)
            images[i, :, y : y + 8, x : x + 8] = 0
            images[i, int(labels[i]), y : y + 8, x : x + 8] = 1
        return ArraySource(images, [str(i) for i in range(n)], labels.tolist(), ["a", "b"])

    data = LabelledData("patches", one_patch(200, 1), one_patch(100, 2))
    chosen = short("attentive", 200, base_lr=4e-2)
    chosen = replace(chosen, data=replace(chosen.data, crop="center", flip=0.0))
    score = evaluate_trained("attentive", run, data, CPU, recipe=chosen)
    assert score.value > 0.8
    assert score.settings["pool"] == "attentive"


def test_fine_tuning_goes_on_exactly_and_leaves_a_run(run, tmp_path):
    data, chosen = stripes_data(40, 12), short("finetune", 6)

    class Dies(Callback):
        def on_log(self, step, row, batch, task):
            if step >= 4:
                raise KeyboardInterrupt

    whole = evaluate_trained("finetune", run, data, replace(CPU, out=tmp_path / "whole"), recipe=chosen)
    broken = replace(CPU, out=tmp_path / "broken")
    every = replace(chosen, train=replace(chosen.train, checkpoint_every_steps=2))
    with pytest.raises(KeyboardInterrupt):
        evaluate_trained("finetune", run, data, broken, recipe=every, callbacks=lambda *_: [Dies()])
    again = evaluate_trained("finetune", run, data, replace(broken, resume=True), recipe=every)
    last = [checkpoint.read(tmp_path / name / "checkpoints" / "step-6").model for name in ("whole", "broken")]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())
    assert again.value == whole.value
    assert (whole.n_train, whole.n_test, whole.metric) == (40, 12, "top1")
    assert whole.settings["layer_decay"] == 0.65
    right = sum(n for true, given, n in whole.confusion.counts if true == given)
    assert right / 12 == whole.value
    assert whole.more["balanced accuracy"] == pytest.approx(whole.value)  # classes of one size
    kept = Score.read(score_file(whole))
    assert kept == replace(again, seconds=kept.seconds)
    # It is of these images: others of the same names are not what it learned from, finished or not.
    other = LabelledData(data.name, stripes(40, seed=9), data.test)
    assert [other.train.name(i) for i in range(40)] == [data.train.name(i) for i in range(40)]
    with pytest.raises(LaminaError, match="was started on other images of the same names"):
        evaluate_trained("finetune", run, other, replace(broken, resume=True), recipe=every)
    # It is a run as any other: a classifier that can be handed over.
    task, _ = load_task(tmp_path / "whole")
    files = export_run(tmp_path / "whole", tmp_path / "x.safetensors")
    images = data.test.images[:4]
    assert torch.equal(load_supervised(files.weights).logits(images), task.logits(images))


def test_a_score_names_what_differs_from_its_recipe(run):
    backbone, source = load_encoder(run), stripes_data(20, 9).train

    def way(chosen):
        return _variant(adapt_recipe(chosen, backbone, source)[0], "finetune", backbone, source)

    plain = recipe("finetune-small")
    assert way(plain) == f"finetune-small, {plain.train.epochs:g} epochs"
    faster = replace(plain, optim=replace(plain.optim, base_lr=0.5, layer_decay=None))
    assert way(faster) == f"{way(plain)}, optim.base_lr 0.5, optim.layer_decay none"
    elsewhere = replace(plain, train=replace(plain.train, seed=3, device="cpu", checkpoint_every_steps=7))
    assert way(elsewhere) == way(plain)
    shorter = classifier_recipe("finetune", str(run), {"recipe": "finetune-small"}, epochs=2.0)
    assert way(shorter) == "finetune-small, 2 epochs"
    mine = [replace(plain, name="mine", optim=replace(plain.optim, base_lr=lr)) for lr in (0.1, 0.1, 0.2)]
    assert way(mine[0]) == way(mine[1]) != way(mine[2])


def test_fine_tuning_starts_from_the_models_weights(run, tmp_path):
    """At rate 0 the encoder is that of the run, of an untrained twin that of its start."""
    data, chosen = stripes_data(20, 9), short("finetune", 1, base_lr=0.0, min_lr=0.0)
    for spec in (str(run), f"untrained:{run}"):
        out = tmp_path / spec.split(":")[0].replace("/", "-")
        score = evaluate_trained("finetune", spec, data, replace(CPU, out=out), recipe=chosen)
        theirs = load_encoder(spec).encoder.vit.state_dict()
        ours = load_task(out)[0].encoder.vit.state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
        assert (score_file(score) is None) == spec.startswith("untrained")


def test_published_recipes_are_found_by_the_size_of_the_network(tmp_path):
    for name, width, depth, expected in (
        ("vit_small_patch16_224", None, None, "finetune-s"),
        ("vit_tiny_patch16_224", 96, 3, "finetune"),
    ):
        start = toy_recipe(name, width=width, depth=depth, heads=None) if width else None
        if start is not None:
            toy_run(tmp_path / "run", start)
        spec = tmp_path / "run" if start is not None else f"untrained:timm/{name}"
        assert protocol_recipe("finetune", load_encoder(spec)).name == expected


@pytest.mark.parametrize(
    ("size", "rate", "decay", "drop_path", "epochs"),
    [
        ("s", 5e-4, 0.65, 0.1, 100),  # CrossMAE's
        ("b", 5e-4, 0.65, 0.1, 100),
        ("l", 1e-3, 0.75, 0.2, 50),
        ("h", 1e-3, 0.75, 0.3, 50),
    ],
)
def test_fine_tuning_is_maes(size, rate, decay, drop_path, epochs):
    """FINETUNE.md of MAE's code."""
    found = recipe(f"finetune-{size}")
    optim, data, head = found.optim, found.data, found.supervised
    assert (optim.kind, optim.base_lr, optim.layer_decay, optim.betas) == ("adamw", rate, decay, (0.9, 0.999))
    assert (optim.weight_decay, optim.warmup_epochs, optim.min_lr, optim.schedule) == (
        0.05,
        5,
        1e-6,
        "cosine",
    )
    assert (found.encoder.drop_path, found.train.epochs, found.train.batch_size) == (drop_path, epochs, 1024)
    assert (head.mixup, head.cutmix, head.mix_prob, head.smoothing) == (0.8, 1.0, 1.0, 0.1)
    assert (head.pool, head.neck, head.head_std) == ("mean", "layer", 2e-5)
    assert (data.auto_augment, data.erase, data.crop_scale) == ("rand-m9-mstd0.5-inc1", 0.25, (0.08, 1.0))


@pytest.mark.parametrize(("size", "epochs"), [("b", 90), ("l", 50), ("h", 50)])
def test_the_linear_probe_is_maes(size, epochs):
    """LINPROBE.md of MAE's code."""
    found = recipe(f"linear-mae-{size}")
    optim, head = found.optim, found.supervised
    assert (optim.kind, optim.base_lr, optim.momentum, optim.trust) == ("lars", 0.1, 0.9, 0.001)
    assert (optim.weight_decay, optim.warmup_epochs, optim.min_lr, optim.schedule) == (0.0, 10, 0.0, "cosine")
    assert (found.train.epochs, found.train.batch_size) == (epochs, 16384)
    assert found.train.micro_batch_size == 512  # what batch norm sees: one of its 32 GPUs
    assert (head.pool, head.neck, head.head_std, head.frozen) == (None, "batch", 0.01, True)
    assert (head.mixup, head.cutmix, head.smoothing) == (0.0, 0.0, 0.0)
    assert (found.data.crop_scale, found.data.auto_augment, found.data.erase) == ((0.08, 1.0), None, 0.0)


def test_what_images_do_not_allow_is_said(tmp_path):
    toy_run(tmp_path / "run", toy_recipe("vit_medium_patch16_gap_240", in_chans=1, mean=(0.5,), std=(0.25,)))
    backbone = load_encoder(tmp_path / "run")
    grey = ArraySource(torch.rand(30, 1, 32, 48), [str(i) for i in range(30)], [0, 1] * 15, ["a", "b"])
    tuned, notes = adapt_recipe(recipe("finetune-b"), backbone, grey)
    assert tuned.data.auto_augment is None
    assert tuned.train.batch_size == 30
    assert tuned.encoder.drop_path == 0.1
    assert len(notes) == 2
    probed, notes = adapt_recipe(recipe("linear-mae"), backbone, grey)
    assert probed.supervised.pool == "mean"
    assert probed.optim.base_lr * probed.train.batch_size / 256 == pytest.approx(6.4)
    assert any("no class token" in note for note in notes)


def test_logits_outside_a_subset_are_no_answer():
    source = stripes(9, seed=0)

    def logits(images):
        found = torch.zeros(len(images), 5)
        found[:, 4] = 9.0  # a class that the images have not
        found[torch.arange(len(images)), torch.tensor([3, 1, 0] * 3)] = 1.0
        return found

    answers = classify(logits, source, (32, 48), 3, subset=(3, 1, 0))
    everything = classify(logits, source, (32, 48), 3)
    assert everything.top1 == 0
    assert answers.predicted.tolist() == [0, 1, 2] * 3
    assert answers.top1 == 1


def test_a_score_is_read_back_or_refused(tmp_path):
    error = Unfinished("interrupted by a signal", 75)
    assert error.exit_code == 75
    assert LaminaError("x").exit_code == 2
    file = tmp_path / "no.json"
    file.write_text(json.dumps({"kind": "other"}))
    for path in (file, tmp_path / "absent.json"):
        with pytest.raises(LaminaError, match="no score"):
            Score.read(path)


def test_wrong_folders_and_data_are_one_line(run, tmp_path):
    data = stripes_data(20, 9)
    with pytest.raises(LaminaError, match="--out"):
        evaluate_trained("finetune", f"untrained:{run}", data, CPU, recipe=short("finetune", 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(LaminaError, match="is not a run"):
        evaluate_trained(
            "finetune", run, data, replace(CPU, out=tmp_path / "full"), recipe=short("finetune", 1)
        )
