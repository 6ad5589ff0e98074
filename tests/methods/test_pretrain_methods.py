"""Every method as a run: it learns on held-out crops, goes on exactly, and leaves its teacher alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lamina
from helpers.options import as_read
from helpers.training import check_resumes
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.patches import take
from lamina.core.rng import sample_keys
from lamina.data.loading.loader import eval_batches
from lamina.data.open import open_source
from lamina.interop.export_run import export_run
from lamina.interop.teachers import open_target
from lamina.runs.run import Run, load_method

DATA = "sample:photos?crop=16&most=40"
DECODER = {"decoder.width": 16, "decoder.depth": 1, "decoder.heads": 2}
RECTANGLES = {"masking.min_block": 2}
METHODS = {
    "maskfeat": {"target.hog_cell_px": 4, **RECTANGLES},
    "eva": DECODER,
    "eva-tokens": RECTANGLES,
    "milan": DECODER,
    "crossmae": DECODER,
    "pixio": {**DECODER, "masking.unit_px": 8},
    "residual-decay": DECODER,
}
TAUGHT = ("eva", "eva-tokens", "milan")


def train(out: Path, name: str, teacher: Path | None = None, options: dict | None = None, **named):
    settings = {"image_size": 16, "patch_size": 4, "batch_size": 32, "base_lr": 8e-3, "workers": 0} | named
    fixed = {
        "encoder.width": 24,
        "encoder.depth": 3,
        "encoder.heads": 2,
        "fusion.layers": "all",
        "train.log_every_steps": 3,
        "train.checkpoint_every_seconds": None,
        "train.keep_checkpoints": 1000,
        "optim.clip_grad": None,
        **METHODS.get(name, DECODER),
        **({"target.teacher": str(teacher)} if name in TAUGHT else {}),
    }
    read = as_read(f"{name}-small", fixed | (options or {}), named.get("fusion"))
    return lamina.pretrain(DATA, out, f"{name}-small", options=read, **settings)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """A little MAE of another seed."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    train(out, "mae", epochs=4.0, seed=7, fusion="none")
    return out


def whole(run: Path):
    """The method of a run with its target: what is read back from a run has no teacher in it."""
    method, recipe = load_method(run)
    _, target = open_target(recipe)
    if target is not None:
        method.target = target
    return method.eval(), recipe


def best_constant(loss: str, target: torch.Tensor) -> float:
    """The loss of the best prediction that is the same for all patches."""
    if loss == "cosine":
        unit = torch.nn.functional.normalize(target, dim=-1)
        return float(2 - 2 * unit.mean(0).norm())
    return float((target - target.mean(0)).square().mean())


@pytest.mark.parametrize("fusion", ["none", "mff"])
@pytest.mark.parametrize("name", METHODS)
def test_a_short_run_beats_the_best_constant_on_held_out_crops(tmp_path, teacher, name, fusion):
    # Histograms of 4 px cells are mostly noise and take longer, and larger steps.
    pace = {"epochs": 8.0, "base_lr": 4e-2} if name == "maskfeat" else {"epochs": 5.0}
    train(tmp_path / "run", name, teacher, fusion=fusion, **pace)
    method, recipe = whole(tmp_path / "run")
    assert recipe.fusion.kind == fusion
    held_out = next(eval_batches(open_source(DATA, "val"), (16, 16), 3, 200, 0, recipe.data))
    batch = Batch(held_out.images, sample_keys(1, 0, torch.arange(len(held_out))))
    with torch.no_grad():
        prediction = method.predict(batch)
        target = take(method.target(batch.images)[0], prediction.where)
        loss = float(method.loss(prediction.values, target).mean())
    assert loss < 0.97 * best_constant(recipe.loss, target.flatten(0, 1))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_goes_on_exactly(tmp_path, teacher, name):
    train(tmp_path / "whole", name, teacher, max_steps=5, checkpoint_every_steps=2)
    check_resumes(tmp_path / "whole", 5, lambda run: lamina.pretrain(DATA, run, resume=True), at=(2,))


@pytest.mark.parametrize(
    "settings",
    [{"workers": 2}, {"precision": "bf16"}, {"precision": "fp16"}],
    ids=["workers", "bf16", "fp16"],
)
@pytest.mark.parametrize("name", ["cmae", "deit"])
def test_methods_with_a_forward_of_their_own_go_on_exactly_at_every_step(tmp_path, name, settings):
    """CMAE's target network moves after the step; DeiT draws its mixtures and keeps an average."""
    named = {"max_steps": 4, "checkpoint_every_steps": 1, "batch_size": 16, **settings}
    train(tmp_path / "whole", name, None, {"encoder.drop_path": 0.2}, **named)
    check_resumes(tmp_path / "whole", 4, lambda run: lamina.pretrain(DATA, run, resume=True), at=(1, 2, 3))


def test_the_teacher_is_named_and_never_saved(tmp_path, teacher):
    train(tmp_path / "run", "eva", teacher, max_steps=2)
    target = Run(tmp_path / "run").recipe().target
    assert target.width == 24
    assert target.target_sha256 is not None
    assert len(target.target_sha256) == 64
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-2" / "model.safetensors")
    assert not [name for name in saved if name.startswith("target")]
    # What the run is good for afterwards needs no teacher; its loss says that it does.
    method, _ = load_method(tmp_path / "run")
    with pytest.raises(LaminaError, match="not loaded here; use the encoder alone"):
        method(torch.rand(1, 3, 16, 16))
    moved = tmp_path / "moved"
    shutil.copytree(teacher, moved)
    assert lamina.load_encoder(tmp_path / "run")(torch.rand(1, 3, 16, 16)).patches.shape == (1, 16, 24)


def test_another_teacher_is_no_resume(tmp_path, teacher):
    own = tmp_path / "teacher"
    shutil.copytree(teacher, own)
    train(tmp_path / "run", "eva", own, max_steps=4, checkpoint_every_steps=2)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-4")
    shutil.rmtree(own)
    train(own, "mae", max_steps=1, seed=8)
    with pytest.raises(LaminaError, match="target_sha256"):
        lamina.pretrain(DATA, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("eva", {"target.teacher": None}, "needs a teacher"),
        ("eva", {"target.teacher": "nonesuch"}, "no encoder 'nonesuch'"),
        ("beit", {}, "needs a tokenizer"),
        ("eva", {"loss": "cross_entropy"}, "does not fit target teacher"),
        ("maskfeat", {"masking.kind": "scored"}, "has none"),
        ("maskfeat", {"target.hog_cell_px": 3}, "cannot be tiled"),
        ("crossmae", {"decoder.kind": "mae"}, "fusion mix"),
    ],
)
def test_what_makes_no_sense_gets_one_line(tmp_path, teacher, name, options, says):
    with pytest.raises(LaminaError, match=says) as error:
        train(tmp_path / "run", name, teacher, options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fusion", ["none", "mff"])
def test_supervised_runs_learn_resume_and_are_handed_over(tmp_path, fusion):
    """DeiT: below the entropy of its 17 classes on held-out crops; classifiers give the run's logits."""
    # Erasing and RandAugment would take longer than a test may.
    options = {
        "data.auto_augment": None,
        "data.erase": 0.0,
        "supervised.mixup": 0.0,
        "supervised.cutmix": 0.0,
    }
    train(tmp_path / "run", "deit", None, options, fusion=fusion, epochs=8.0)
    task, recipe = lamina.runs.run.load_task(tmp_path / "run")
    assert len(recipe.labels.classes) == 17
    batch = next(eval_batches(open_source(DATA, "val"), (16, 16), 3, 400, 0, recipe.data))
    with torch.no_grad():
        logits = task.logits(batch.images)
    loss = float(torch.nn.functional.cross_entropy(logits, batch.labels))
    share = torch.bincount(batch.labels, minlength=17) / len(batch)
    assert loss < 0.8 * float(-torch.special.xlogy(share, share).sum())
    handed = export_run(tmp_path / "run", tmp_path / "c.safetensors", "lamina")
    torch.testing.assert_close(lamina.load_supervised(handed.weights).logits(batch.images), logits)
    if fusion == "mff":
        with pytest.raises(LaminaError, match="fused"):
            export_run(tmp_path / "run", tmp_path / "t.safetensors", "timm")
    with pytest.raises(LaminaError, match="trained on labels"):
        load_method(tmp_path / "run")
    assert lamina.load_encoder(tmp_path / "run").kinds == (
        ("last",) if fusion == "none" else ("last", "fused")
    )


def test_images_without_labels_teach_no_classes(tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    for i in range(4):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    with pytest.raises(LaminaError, match="learns from labels"):
        lamina.pretrain(str(tmp_path / "photos"), tmp_path / "run", "deit-small", max_steps=1)


@pytest.mark.parametrize(
    ("option", "said"), [({"labels.several": True}, "has one class"), ({"labels.classes": ("a",)}, "1 class")]
)
def test_classes_that_are_not_those_of_the_images_are_refused(option, said, tmp_path):
    with pytest.raises(LaminaError, match=said):
        lamina.pretrain(
            "sample:photos?crop=20&most=2", tmp_path / "run", "deit-small", max_steps=1, options=option
        )
