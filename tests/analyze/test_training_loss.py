"""Losses of runs and their mini-batches: which images, which crops, which masks, and the verb that uses them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.runs import toy_recipe, toy_run
from lamina.analyze.training_loss import OwnLoss, mini_batches, open_loss
from lamina.cli.entry import main
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.data.options import DataOptions
from lamina.data.sources import FileSource
from lamina.interop.teachers import open_target
from lamina.recipes.build import build_method, build_task
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run
from lamina.train import checkpoint

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """Two classes of files of 48 x 64 px in train/ and val/: a ramp from left to right that says which."""
    root = tmp_path_factory.mktemp("labelled")
    for p, part in enumerate(("train", "val")):
        for c, name in enumerate("ab"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(6):
                ramp = np.broadcast_to(np.linspace(0, 100, 64), (48, 64))
                pixels = np.stack([ramp, np.full((48, 64), 10 * i), np.full((48, 64), 60 * p + 120 * c)], -1)
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{i}.png")
    return root


def masked(**data) -> OwnLoss:
    recipe = replace(toy_recipe(), data=DataOptions(**data))
    return OwnLoss(build_method(recipe).eval(), recipe)


def test_held_out_images_are_cropped_in_the_middle_and_drawn_by_the_seed(labelled):
    losses = {"mae": masked(eval_crop_share=1.0)}
    batches = mini_batches(losses, str(labelled), "eval", 3, 2, seed=1)
    again = mini_batches(losses, str(labelled), "eval", 2, 3, seed=1)
    images = torch.cat([batch.images for batch in batches])
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert torch.equal(images, torch.cat([batch.images for batch in again]))
    assert set(images[:, 2].unique().tolist()) <= {60, 180}  # of val/ alone
    assert int(images[:, 0, :, 0].max()) < 5 < 95 < int(images[:, 0, :, -1].min())  # the whole ramp
    others = mini_batches(losses, str(labelled), "eval", 3, 2, seed=2)
    assert not torch.equal(images, torch.cat([batch.images for batch in others]))
    with pytest.raises(LaminaError, match="need 16 images and there are 12"):
        mini_batches(losses, str(labelled), "eval", 4, 4, seed=1)


def test_mini_batches_do_not_shrink_where_an_image_cannot_be_read(tmp_path):
    for i in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    (tmp_path / "4.png").write_bytes(b"")
    with pytest.raises(LaminaError, match=r"1 of 6 images cannot be read \(4\.png\)"):
        mini_batches({"mae": masked()}, str(tmp_path), "eval", 3, 2, seed=1)


def test_training_crops_are_those_of_training_whatever_the_batches(labelled):
    """A crop and a flip are functions of (seed, epoch, sample), and masks of the same keys."""
    loss = masked(crop_scale=(0.2, 0.5), flip=1.0)
    batches = mini_batches({"mae": loss}, str(labelled), "train", 2, 4, seed=3)
    by_two = mini_batches({"mae": loss}, str(labelled), "train", 4, 2, seed=3)
    images, keys = (torch.cat([getattr(b, name) for b in batches]) for name in ("images", "keys"))
    assert torch.equal(images, torch.cat([batch.images for batch in by_two]))
    assert set(images[:, 2].unique().tolist()) <= {0, 120}  # of train/ alone
    assert bool((images[:, 0, :, 0] > images[:, 0, :, -1]).all())  # flipped
    source = FileSource(str(labelled / "train"), [f"{c}/{i}.png" for c in "ab" for i in range(6)])
    every = sample_keys(3, 0, torch.arange(len(source)))
    for image, key in zip(images, keys, strict=True):
        index = every.tolist().index(int(key))  # the key names the sample
        assert int(image[1].unique()) == 10 * (index % 6)
    task = loss.task
    one = task.mask(batches[0])
    assert torch.equal(one, torch.cat([task.mask(batch) for batch in by_two[:2]]))
    other = mini_batches({"mae": loss}, str(labelled), "train", 2, 4, seed=4)
    assert not torch.equal(images, torch.cat([batch.images for batch in other]))


def test_runs_that_do_not_see_the_same_images_are_refused(labelled):
    mae = masked()
    small = replace(mae.recipe, encoder=replace(mae.recipe.encoder, image_size=(32, 32)))
    with pytest.raises(LaminaError, match="different sizes or channels"):
        mini_batches({"a": mae, "b": OwnLoss(mae.task, small)}, str(labelled), "eval", 1, 2, 0)
    views = OwnLoss(mae.task, replace(mae.recipe, data=DataOptions(second_view="cmae")))
    with pytest.raises(LaminaError, match="take --crops train"):
        mini_batches({"cmae": views}, str(labelled), "eval", 1, 2, 0)
    with pytest.raises(LaminaError, match="analyse it separately"):
        mini_batches({"mae": mae, "cmae": views}, str(labelled), "train", 1, 2, 0)
    assert mini_batches({"cmae": views}, str(labelled), "train", 1, 2, 0)[0].view is not None
    deit = replace(mae.recipe, method="supervised")
    deit = replace(deit, labels=replace(deit.labels, classes=("a", "c")))
    with pytest.raises(LaminaError, match="other classes"):
        mini_batches({"deit": OwnLoss(mae.task, deit)}, str(labelled), "eval", 1, 2, 0)
    with pytest.raises(LaminaError, match="have none"):
        mini_batches({"deit": OwnLoss(mae.task, deit)}, str(labelled / "val" / "a"), "eval", 1, 2, 0)


def test_a_loss_asks_the_teacher_that_it_was_trained_with(tmp_path):
    toy_run(tmp_path / "teacher", toy_recipe())
    start = toy_recipe()
    teacher = replace(start.target, kind="teacher", teacher=str(tmp_path / "teacher"))
    recipe, target = open_target(replace(start, target=teacher, loss="cosine"))
    method = build_task(recipe, target).eval()
    run = Run(tmp_path / "eva")
    run.start(recipe, DataFacts("photos/", 10, "0" * 64), None)
    checkpoint.write(run.checkpoints, 3, checkpoint.Checkpoint(checkpoint.model_tensors(method), {}, {}))
    batch = Batch(torch.rand(2, 3, 32, 48), torch.arange(2))
    with torch.no_grad():
        losses = [float(task(batch)["loss"]) for task in (method, open_loss(str(run.path)).task)]
    assert losses[0] == losses[1]
    toy_run(tmp_path / "another", toy_recipe(), steps=(4,))
    (tmp_path / "teacher").rename(tmp_path / "moved")
    (tmp_path / "another").rename(tmp_path / "teacher")
    with pytest.raises(LaminaError, match="not the network"):
        open_loss(str(run.path))


def test_a_classifier_from_the_command_line(labelled, tmp_path, capsys):
    """L2 moves every eigenvalue up by its weight decay at most (Weyl), on the same mini-batches."""
    run = tmp_path / "deit"
    sizes = "--image-size 16 --patch-size 8 --encoder.width 24 --encoder.depth 2 --encoder.heads 2"
    asked = "--recipe deit-small --fusion none --max-steps 2 --batch-size 4 --workers 0 --supervised.ema 0.9"
    assert main(["pretrain", str(labelled), "--out", str(run), *sizes.split(), *asked.split()]) == 0
    verb = ["analyze", "hessian", str(run), "--batches", "2", "--batch-size", "3", "--tol", "1e-4"]
    found = {}
    for name, options in {
        "nll": ("--crops", "train"),
        "l2": ("--crops", "train", "--weight-decay", "0.5"),
        "mixed": ("--crops", "train", "--mixed"),
        "eval": ("--density-probes", "1", "--trace-probes", "1", "--power-iterations", "1"),
    }.items():
        assert main([*verb, *options, "--out", str(tmp_path / name)]) == 0
        content = json.loads((tmp_path / name / "hessian.json").read_text())
        assert content["settings"]["crops"] == ("eval" if name == "eval" else "train")
        found[name] = content["result"]["models"]["deit"]
    values = {
        name: np.array([[value["value"] for value in row["top"] + row["bottom"]] for row in rows])
        for name, rows in found.items()
    }
    moved = values["l2"] - values["nll"]
    assert moved.min() >= -1e-3
    assert moved.max() <= 0.5 + 1e-3
    assert moved.max() > 0.05
    assert found["l2"][0]["loss"] == found["nll"][0]["loss"] != found["mixed"][0]["loss"]
    assert found["eval"][0]["density"]["probes"] == 1
    shown = capsys.readouterr()
    assert "mini-batch 2 of 2" in shown.err
    assert "by power iteration" in shown.out
    assert main([*verb, "--mixed", "--batches", "40"]) == 2
    assert "need 120 images and there are 12" in capsys.readouterr().err
