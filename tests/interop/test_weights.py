"""Foreign weights: hostile files run nothing, MAE's own layout loads, positions resample as timm's."""

import argparse
import os
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import checkpoint_filter_fn

from helpers.runs import shaken, toy_recipe
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.read_file import read_weights
from lamina.interop.load import load_encoder
from lamina.interop.load_weights import load_weights_into
from lamina.recipes.build import build_method

OPTIONS = EncoderOptions(
    "vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=96, depth=2, heads=3
)


def small(seed=0, **changes):
    import dataclasses

    return shaken(build_vit(dataclasses.replace(OPTIONS, **changes)), seed)


def same(a, b):
    return all(torch.equal(tensor, b[name]) for name, tensor in a.items()) and a.keys() == b.keys()


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_is_refused_and_runs_nothing(tmp_path, legacy):
    trap, file = tmp_path / "trap", tmp_path / "weights.pth"
    if legacy:
        file.write_bytes(pickle.dumps({"model": Hostile(str(trap))}, protocol=2))
    else:
        torch.save({"model": Hostile(str(trap))}, file)
    vit = small()
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    for read in (
        read_weights,
        lambda f: load_weights_into(vit, f),
        lambda f: load_encoder(f, encoder=OPTIONS),
    ):
        with pytest.raises(LaminaError, match="wants to run code"):
            read(file)
    assert not trap.exists()
    assert same(before, vit.state_dict())


@pytest.mark.parametrize(
    "name", ["noise.pth", "noise.safetensors", "empty.pth", "list.pth", "other.txt", "none.pth"]
)
def test_damaged_and_foreign_files_get_one_line(tmp_path, name):
    (tmp_path / "noise.pth").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "noise.safetensors").write_bytes(bytes(range(256)) * 4)
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "other.txt").write_text("weights")
    with pytest.raises(LaminaError) as caught:
        load_weights_into(small(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_full_mae_checkpoint_loads_without_its_decoder(tmp_path):
    source = small(seed=1)
    extras = {
        "mask_token": torch.zeros(1, 1, 16),
        "decoder_embed.weight": torch.zeros(16, 96),
        "decoder_pos_embed": torch.zeros(1, 17, 16),
        "decoder_blocks.0.attn.qkv.weight": torch.zeros(48, 16),
    }
    content = {"model": {**source.state_dict(), **extras}, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
    torch.save(content, tmp_path / "checkpoint-3.pth")
    vit = small(seed=2)
    loaded = load_weights_into(vit, tmp_path / "checkpoint-3.pth")
    assert same(source.state_dict(), vit.state_dict())
    assert set(loaded.ignored) == set(extras)
    assert not loaded.resampled
    backbone = load_encoder(tmp_path / "checkpoint-3.pth", encoder=OPTIONS)
    assert same(source.state_dict(), backbone.encoder.vit.state_dict())


@pytest.mark.parametrize("prefix", ["module.", "encoder.vit.", "backbone."])
def test_a_common_prefix_is_taken_off_and_the_rest_left(tmp_path, prefix):
    source = small(seed=1)
    tensors = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    torch.save({"state_dict": {**tensors, "neck.weight": torch.zeros(3)}}, tmp_path / "w.pth")
    vit = small(seed=2)
    assert load_weights_into(vit, tmp_path / "w.pth").ignored == ("neck.weight",)
    assert same(source.state_dict(), vit.state_dict())


def test_our_own_checkpoint_is_a_weights_file(tmp_path):
    method = shaken(build_method(toy_recipe()))
    save_file(method.state_dict(), tmp_path / "model.safetensors")
    vit = build_vit(toy_recipe().encoder)
    load_weights_into(vit, tmp_path / "model.safetensors")
    assert same(method.encoder.vit.state_dict(), vit.state_dict())


def test_a_head_is_left_out_and_named(tmp_path):
    source = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=96, depth=2, num_heads=3
    )
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = load_weights_into(small(), tmp_path / "w.safetensors")
    assert set(loaded.ignored) == {"head.weight", "head.bias"}
    assert "left out: head" in str(loaded)


@pytest.mark.parametrize(
    ("name", "size"), [("vit_tiny_patch16_224", (48, 24)), ("vit_medium_patch16_gap_240", (64, 64))]
)
def test_positions_are_resampled_as_timm_does(tmp_path, name, size):
    source, vit = small(seed=1, name=name), small(seed=2, name=name, image_size=size)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    loaded = load_weights_into(vit, tmp_path / "w.safetensors")
    prefix = 0 if source.cls_token is None else 1
    expected = resample_abs_pos_embed(
        source.pos_embed, [size[0] // 8, size[1] // 8], [4, 4], num_prefix_tokens=prefix
    )
    assert loaded.resampled
    assert torch.equal(vit.pos_embed, expected)
    peer = small(seed=3, name=name, image_size=size)
    peer.load_state_dict(checkpoint_filter_fn(dict(source.state_dict()), peer), strict=True)
    torch.testing.assert_close(peer.pos_embed, vit.pos_embed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"depth": 3}, "missing: blocks.2"),
        ({"depth": 1}, "unexpected: blocks.1"),
        (
            {"patch_size": 4, "image_size": (16, 16)},
            "patch_embed.proj.weight is 96 x 3 x 8 x 8 in the file, 96 x 3 x 4 x 4",
        ),
        ({"in_chans": 1}, "for 3 channel.s., this network for 1; give --encoder.init-channels"),
        ({"width": 48}, "cls_token is 1 x 1 x 96 in the file, 1 x 1 x 48 in this network"),
    ],
)
def test_what_does_not_fit_is_listed_and_changes_nothing(tmp_path, change, sentence):
    save_file(small(seed=1).state_dict(), tmp_path / "w.safetensors")
    vit = small(seed=2, **change)
    before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    with pytest.raises(LaminaError, match=sentence) as caught:
        load_weights_into(vit, tmp_path / "w.safetensors")
    assert "\n" not in str(caught.value)
    assert same(before, vit.state_dict())


def test_a_file_that_is_no_vit_is_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(LaminaError, match="no ViT under timm's names"):
        load_weights_into(small(), tmp_path / "w.safetensors")


def test_a_dictionary_that_holds_itself_ends(tmp_path):
    endless = {"epoch": 3}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(LaminaError, match="no tensors"):
        read_weights(tmp_path / "endless.pth")
