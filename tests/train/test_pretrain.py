"""Whole runs on real photographs: learning, exact resume, ranks, and refusals."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lamina
from helpers.options import TINY_NETWORK, as_read
from helpers.ranks import command, run_ranks
from helpers.training import check_resumes
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.patches import take
from lamina.core.rng import sample_keys
from lamina.data.loading.loader import eval_batches
from lamina.data.open import open_source
from lamina.runs.run import Run, load_method
from lamina.train.rows import CLOCK_FIELDS

DATA = "sample:photos?crop=16&most=4"
TINY = TINY_NETWORK | {
    "encoder.depth": 3,
    "train.log_every_steps": 3,
    "train.keep_checkpoints": 1000,
    "train.checkpoint_every_seconds": None,
}


def train(out: Path, recipe: str = "mae-small", data: str = DATA, options: dict | None = None, **named):
    settings = {"image_size": 16, "patch_size": 4, "batch_size": 16, "workers": 0} | named
    if "max_steps" not in settings:
        settings = {"epochs": 2.0} | settings
    chosen = as_read(recipe, TINY | {"masking.unit_px": 8} | (options or {}), named.get("fusion"))
    return lamina.pretrain(data, out, recipe, options=chosen, **settings)


def rows(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in CLOCK_FIELDS} for row in Run(run).metrics()]


def state(run: Path, step: int) -> dict[str, bytes]:
    folder = run / "checkpoints" / f"step-{step}"
    return {name: (folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_every_step_is_bit_identical(tmp_path, workers):
    whole = tmp_path / "whole"
    last = train(whole, checkpoint_every_steps=1, workers=workers, options={"encoder.drop_path": 0.1}).step
    assert last >= 8
    at = range(1, last) if workers == 0 else (1, last // 2, last - 1)  # a start of workers takes its time
    check_resumes(whole, last, lambda run: lamina.pretrain(DATA, run, resume=True), at=at)


def test_workers_change_nothing(tmp_path):
    for workers in (0, 2):
        train(tmp_path / str(workers), workers=workers, max_steps=4)
    assert state(tmp_path / "0", 4) == state(tmp_path / "2", 4)


def constant_losses(recipe_name: str, target, hidden) -> float:
    """The loss of the best constant: one prediction for all patches, each number its mean (or median for L1)."""
    values = target[hidden]
    if recipe_name.startswith("simmim"):
        return float((values - values.median(0).values).abs().mean())
    return float((values - values.mean(0)).square().mean())


@pytest.mark.parametrize("fusion", ["none", "mff"])
@pytest.mark.parametrize("recipe", ["mae-small", "pixmim-small", "simmim-small"])
def test_a_short_run_beats_the_best_constant_on_held_out_crops(tmp_path, recipe, fusion):
    data = "sample:photos?crop=16&most=40"
    train(tmp_path / "run", recipe, data, fusion=fusion, epochs=8.0, base_lr=8e-3, batch_size=32)
    method, loaded = load_method(tmp_path / "run")
    assert loaded.fusion.kind == fusion
    held_out = next(eval_batches(open_source(data, "val"), (16, 16), 3, 200, 0, loaded.data))
    batch = Batch(held_out.images, sample_keys(1, 0, torch.arange(len(held_out))))
    with torch.no_grad():
        prediction = method.predict(batch)
        target, _ = method.target(batch.images)
        loss = float(method(batch)["loss"])
    assert loss < 0.95 * constant_losses(recipe, target, prediction.mask)
    assert torch.equal(take(prediction.mask, prediction.where), torch.ones_like(prediction.where).bool())


def test_fusion_is_logged_at_every_row(tmp_path):
    train(tmp_path / "run", max_steps=6)
    logged = rows(tmp_path / "run")
    assert [row["step"] for row in logged] == [3, 6]
    for row in logged:
        assert len(row["fusion_weights"]) == len(row["fusion_shares"]) == 3
        assert sum(row["fusion_weights"]) == pytest.approx(1)
        assert sum(row["fusion_shares"]) == pytest.approx(1)
        assert row["lr_sum"] >= 0


def two_ranks(out: Path, *options: str) -> None:
    run_ranks(command, ["pretrain", DATA, "--out", str(out), *options], out.parent)


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path):
    """The same crops and masks, so the same losses and weights but for the order of sums."""
    one = tmp_path / "one"
    train(one, max_steps=5, checkpoint_every_steps=1, options={"train.log_every_steps": 1})
    saved = tmp_path / "recipe.yaml"
    shutil.copy(one / "recipe.yaml", saved)
    two_ranks(tmp_path / "two", "--config", str(saved))
    # AdamW's first moment after one step is a tenth of the gradient.
    moments = [load_file(r / "checkpoints/step-1/optimizer.safetensors") for r in (one, tmp_path / "two")]
    for name in (n for n in moments[0] if n.endswith("exp_avg")):
        largest = float(moments[0][name].abs().max())
        assert float((moments[0][name] - moments[1][name]).abs().max()) <= 1e-6 * max(largest, 1e-3), name
    for a, b in zip(rows(one), rows(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    weights = [load_file(r / "checkpoints/step-5/model.safetensors") for r in (one, tmp_path / "two")]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-5)


def test_measured_statistics_are_written_down(tmp_path):
    train(tmp_path / "run", max_steps=1, mean="auto", std="auto")
    encoder = Run(tmp_path / "run").recipe().encoder
    source = open_source(DATA)
    pixels = torch.stack([source.read(i) for i in range(len(source))]).double() / 255
    assert encoder.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=0.02)
    assert encoder.std == pytest.approx(pixels.transpose(0, 1).flatten(1).std(1).tolist(), abs=0.02)


def test_going_on_from_a_trained_encoder(tmp_path):
    train(tmp_path / "first", max_steps=3)
    weights = tmp_path / "first" / "encoder" / "model.safetensors"
    train(tmp_path / "second", max_steps=1, init=weights, base_lr=0.0)
    first, second = (load_method(tmp_path / name)[0].encoder.vit.state_dict() for name in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resume_before_the_first_checkpoint_starts_from_init_again(tmp_path):
    train(tmp_path / "first", max_steps=2)
    weights = tmp_path / "first" / "encoder" / "model.safetensors"
    train(tmp_path / "whole", max_steps=2, init=weights)
    shutil.copytree(tmp_path / "whole", tmp_path / "early")
    shutil.rmtree(tmp_path / "early" / "checkpoints")
    lamina.pretrain(DATA, tmp_path / "early", resume=True)
    assert state(tmp_path / "early", 2) == state(tmp_path / "whole", 2)


def test_a_resume_on_other_images_of_the_same_number_is_refused(tmp_path):
    for name in "abcdef":
        Image.new("RGB", (16, 16), "grey").save(tmp_path / f"{name}.png")
    train(tmp_path / "run", data=str(tmp_path / "*.png"), epochs=1.0, batch_size=2)
    (tmp_path / "a.png").rename(tmp_path / "z.png")
    with pytest.raises(LaminaError, match="not the same"):
        lamina.pretrain(str(tmp_path / "*.png"), tmp_path / "run", resume=True)


def test_the_run_folder_is_guarded(tmp_path):
    out = tmp_path / "run"
    train(out, max_steps=2)
    with pytest.raises(LaminaError, match="--resume"):
        train(out, max_steps=2)
    with pytest.raises(LaminaError, match=r"these differ: train\.seed"):
        lamina.pretrain(DATA, out, resume=True, seed=5)
    with pytest.raises(LaminaError, match="started on"):
        lamina.pretrain("sample:photos?crop=16&most=5", out, resume=True)
    with pytest.raises(LaminaError, match="its own recipe, mae-small"):
        lamina.pretrain(DATA, out, "simmim", resume=True)
    with pytest.raises(LaminaError, match="differ: init"):
        lamina.pretrain(DATA, out, resume=True, init="other.safetensors")
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("three years")
    with pytest.raises(LaminaError, match="is not a run"):
        train(other, max_steps=2, overwrite=True)
    assert (other / "thesis.txt").read_text() == "three years"
    # A mistake is found before the old run is given up.
    with pytest.raises(LaminaError, match=r"there is no"):
        train(out, data=str(tmp_path / "nothing"), overwrite=True)
    assert Run(out).metrics()
    assert train(out, max_steps=1, overwrite=True).step == 1


def test_the_environment_is_written_down(tmp_path):
    train(tmp_path / "run", max_steps=1)
    written = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert written["packages"]["torch"] == importlib.metadata.version("torch")
    assert Run(tmp_path / "run").source() == DATA
