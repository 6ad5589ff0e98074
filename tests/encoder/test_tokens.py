"""Several class tokens: built as timm's class token and registers, pooled as one."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file

from helpers.runs import shaken, toy_recipe
from lamina.core.errors import LaminaError
from lamina.core.weight_init import init_vit_mae
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone
from lamina.interop.export import write_encoder
from lamina.recipes.build import build_method

SMALL = EncoderOptions(
    name="vit_tiny_patch16_224",
    image_size=(32, 48),
    patch_size=8,
    width=96,
    depth=3,
    heads=3,
    class_tokens=8,
)
EVA = "vit_small_patch16_rope_224"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", EVA])
def test_class_tokens_are_timms_class_token_and_registers(name):
    vit = build_vit(replace(SMALL, name=name))
    assert vit.cls_token.shape == (1, 1, 96)
    assert vit.reg_token.shape == (1, 7, 96)
    encoder = wrap_vit(vit.eval(), replace(SMALL, name=name)).eval()
    assert (encoder.n_prefix, encoder.n_class) == (8, 8)
    images = torch.rand(2, 3, 32, 48)
    assert torch.equal(encoder.norm(encoder(images, [2])[0]), vit.forward_features(encoder.normalise(images)))
    assert encoder(images, [2], torch.arange(24).expand(2, -1) > 5, 6)[0].shape == (2, 8 + 6, 96)


def test_they_start_alike():
    torch.manual_seed(0)
    vit = build_vit(replace(SMALL, width=768))
    init_vit_mae(vit)
    tokens = torch.cat([vit.cls_token, vit.reg_token], dim=1)[0]
    torch.testing.assert_close(tokens.std(dim=1), torch.full((8,), 0.02), rtol=0.1, atol=0)
    assert not vit.pos_embed[0, :8].any()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", EVA])
def test_their_mean_is_the_class_feature_and_patches_come_after(name, tmp_path):
    recipe = toy_recipe(name, class_tokens=8)
    method = shaken(build_method(recipe))
    encoder = Encoder(method.encoder.vit, class_tokens=8)
    backbone, images = Backbone(encoder), torch.rand(2, 3, 32, 48)
    found = backbone(images)
    exported = write_encoder(method, recipe.encoder, None, tmp_path / "vit.safetensors", 3)
    vit = timm.create_model(name, **load_arguments(exported)).eval()
    vit.load_state_dict(load_file(exported.weights), strict=True)
    with torch.no_grad():
        tokens = vit.forward_features(encoder.normalise(images))
    assert backbone.pools == ("cls", "mean")
    torch.testing.assert_close(found.pooled("cls"), sum(tokens[:, i] for i in range(8)) / 8)
    assert torch.equal(found.patches, tokens[:, 8:])


def load_arguments(exported):
    return json.loads(exported.config.read_text())["model_args"]


def test_registers_stay_registers():
    options = replace(SMALL, name="vit_small_patch16_dinov3", class_tokens=1)
    vit = build_vit(options)
    encoder = Encoder(vit)
    images = torch.rand(2, 3, 32, 48)
    assert (encoder.n_prefix, encoder.n_class) == (5, 1)
    tokens = encoder.norm(encoder.eval()(images, [2])[0])
    assert torch.equal(Backbone(encoder)(images).cls, tokens[:, 0])


def test_no_class_token_is_none():
    encoder = Encoder(build_vit(replace(SMALL, name="vit_medium_patch16_reg4_gap_256", class_tokens=1)))
    assert encoder.n_class == 0
    assert Backbone(encoder).pools == ("mean",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("vit_small_patch16_dinov3", "has registers"),
        ("vit_medium_patch16_reg4_gap_256", "has registers"),
        ("vit_medium_patch16_gap_240", "no class token"),
        ("beit_base_patch16_224", "one class token"),
    ],
)
def test_networks_that_cannot_have_them(name, says):
    with pytest.raises(LaminaError, match=says):
        build_vit(replace(SMALL, name=name))


def test_counts_that_make_no_sense():
    with pytest.raises(LaminaError, match="1 or more"):
        build_vit(replace(SMALL, class_tokens=0))
    with pytest.raises(LaminaError, match="cannot be 3 class tokens"):
        Encoder(build_vit(SMALL), class_tokens=3)
