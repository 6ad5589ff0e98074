"""`inspect` says what a path is, accounts for every tensor once, and its commands name what works."""

import argparse
import json
import os
import pickle
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers.foreign_files import GRID, SIZES, WIDTH, beit_file, mae_file, mm_file, saved, table, transformers
from helpers.runs import toy_recipe, toy_run
from lamina.core.errors import LaminaError
from lamina.interop.export import export_timm
from lamina.interop.foreign.read_file import read_weights
from lamina.interop.inspect import inspect
from lamina.interop.inspect_view import grouped
from lamina.interop.load import load_encoder


def counted(found):
    return sum(group.tensors for group in (*found.used, *found.ignored))


def test_groups_are_by_beginning_and_block():
    names = ["a.cls", "a.pos", "b.0.x.w", "b.0.y.w", "b.11.x.w", "scale"]
    assert [str(g) for g in grouped(names)] == ["a (2)", "b.0-11 (3)", "scale (1)"]


def test_a_run_and_a_step_of_it(tmp_path):
    methods = toy_run(tmp_path / "run", toy_recipe(), steps=(3, 10))
    for spec, step in (("run", 10), ("run@3", 3), ("run/checkpoints/step-3", 3)):
        found = inspect(tmp_path / spec)
        assert found.what == f"a run of lamina, step {step}"
        assert found.parameters == sum(t.numel() for t in methods[step].state_dict().values())
        assert counted(found) == len(methods[step].state_dict())
        assert {g.part for g in found.used} == {"encoder", "fusion"}
        assert all(g.prefix.startswith("decoder") for g in found.ignored)
        assert "width 96, 3 blocks, 3 heads, patch 8 px, images 32 x 48 px" in found.architecture
    assert "steps 3 10" in str(inspect(tmp_path / "run"))
    with pytest.raises(LaminaError, match="no checkpoint of step 4"):
        inspect(tmp_path / "run@4")


@pytest.mark.parametrize("out", ["vit.safetensors", "folder"])
def test_an_export(tmp_path, out):
    toy_run(tmp_path / "run", toy_recipe(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    export_timm(tmp_path / "run", tmp_path / out)
    found = inspect(tmp_path / out)
    assert found.what == "an encoder that lamina exported for timm"
    assert ("fusion", "mff, in a file beside it") in found.facts
    assert ("mean, std", "0.1 0.2 0.3, 0.4 0.5 0.6") in found.facts
    assert counted(found) == len(read_weights(tmp_path / out))
    for flag in ("--encoder.width 96", "--encoder.image-size 32 48", "--encoder.mean 0.1 0.2 0.3"):
        assert flag in found.commands[1]


def test_a_tokenizer_folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"format": "lamina-tokenizer", "options": {"codes": 7}}))
    save_file({"encoder.0.weight": torch.zeros(2, 3)}, tmp_path / "tokenizer.safetensors")
    found = inspect(tmp_path)
    assert found.what == "a tokenizer that lamina trained"
    assert found.parameters == 6
    assert "--target.tokenizer" in found.commands[0]


@pytest.mark.parametrize(
    ("content", "what", "parts", "ignored"),
    [
        (lambda: mae_file(table()), "MAE (facebookresearch)", {"encoder", "decoder"}, set()),
        (lambda: mm_file(table(True)), "mmpretrain MAE", {"encoder", "decoder"}, set()),
        (lambda: mm_file(table(True), 3), "mmpretrain MFF", {"encoder", "fusion", "decoder"}, set()),
        (beit_file, "BEiT (microsoft)", {"encoder"}, {"mask_token", "lm_head", "rel_pos_bias"}),
        (
            lambda: beit_file("encoder."),
            "SimMIM ViT (microsoft)",
            {"encoder"},
            {"encoder", "encoder.rel_pos_bias", "decoder.0"},
        ),
    ],
)
def test_what_others_trained(tmp_path, content, what, parts, ignored):
    tensors = content()
    torch.save({"model": tensors, "args": argparse.Namespace(lr=1.0)}, tmp_path / "their weights.pth")
    found = inspect(tmp_path / "their weights.pth")
    assert found.what == what
    assert counted(found) == len(tensors)
    assert {g.part for g in found.used} == parts
    assert {g.prefix for g in found.ignored} == ignored
    assert f"width {WIDTH}, 3 blocks" in found.architecture
    assert f"images {8 * GRID[0]} x {8 * GRID[1]} px" in found.architecture
    assert found.parameters == sum(t.numel() for t in tensors.values())
    assert str(found).count("\n") + 1 == len(found.rows())
    if "BEiT" in what:
        assert "--init '" in found.commands[1]  # a name with a blank is quoted
        assert "--encoder.relative-positions shared" in found.commands[1]


def test_a_folder_of_transformers(tmp_path):
    t = transformers()
    saved(t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**SIZES, projection_dim=24)), tmp_path)
    found = inspect(tmp_path)
    assert found.what == "transformers CLIP vision tower"
    assert found.architecture.startswith("vit_base_patch16_clip_quickgelu_224, width 48, 3 blocks, 3 heads")
    assert {g.part for g in found.used} == {"encoder", "head"}
    assert any("--target.teacher" in line for line in found.commands)
    assert load_encoder(tmp_path).encoder.width == WIDTH


def test_timm_names_and_unknown_tensors(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    exported = export_timm(tmp_path / "run", tmp_path / "vit.safetensors")
    save_file(read_weights(exported.weights), exported.weights)
    exported.config.unlink()
    found = inspect(exported.weights)
    assert found.what == "a ViT under timm's names"
    assert "width 96, 3 blocks, patch 8 px" in found.architecture
    assert "--network TIMM-NAME" in found.commands[0]
    save_file({"conv.0.weight": torch.zeros(3), "fc.bias": torch.zeros(2)}, tmp_path / "cnn.safetensors")
    found = inspect(tmp_path / "cnn.safetensors")
    assert "tensors of an unknown format" in found.what
    assert [str(g) for g in found.ignored] == ["conv.0 (1)", "fc (1)"]
    assert found.parameters == 5


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_hostile_pickle_runs_nothing(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"model": mae_file(table()), "args": Hostile(str(trap))}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"model": Hostile(str(trap))}, protocol=2))
    for name in ("a.pth", "b.pth"):
        with pytest.raises(LaminaError, match="wants to run code"):
            inspect(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["nowhere", "noise.pth", "noise.safetensors", "photo.jpg"])
def test_what_cannot_be_read_is_one_line(tmp_path, name):
    if name != "nowhere":
        (tmp_path / name).write_bytes(bytes(range(256)) * 4)
    with pytest.raises(LaminaError) as caught:
        inspect(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    assert inspect(tmp_path / "photos").what == "a folder without weights: a.jpg"


def test_the_fusion_of_crossmae_is_said(tmp_path):
    recipe = toy_recipe()
    decoder = replace(recipe.decoder, kind="cross", depth=2)
    toy_run(tmp_path / "run", replace(recipe, decoder=decoder, fusion=replace(recipe.fusion, kind="mix")))
    assert ("fusion", "mix") in inspect(tmp_path / "run").facts


def test_heads_mask_tokens_and_what_serves_training_alone_are_not_the_encoders(tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=5)
    tensors = {**vit.state_dict(), "mask_token": torch.zeros(1, 1, 192), "decoder_norm.bias": torch.zeros(2)}
    save_file(tensors, tmp_path / "vit.safetensors")
    found = inspect(tmp_path / "vit.safetensors")
    assert {g.prefix for g in found.ignored} == {"head", "mask_token", "decoder_norm"}
    assert counted(found) == len(tensors)
    recipe = toy_recipe(hide="replace")
    recipe = replace(recipe, decoder=replace(recipe.decoder, kind="linear"))
    toy_run(tmp_path / "run", recipe)
    assert ("", "encoder", 1) in inspect(tmp_path / "run").ignored  # its mask token
