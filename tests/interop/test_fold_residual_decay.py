"""Runs with residual decay handed over: folded weights and fusions, and training that starts from them."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from helpers.runs import shaken, toy_recipe, toy_run
from lamina.callbacks.export_encoder import EncoderExport
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import Encoder
from lamina.fusion.layer_mix import LayerMix
from lamina.interop.backbone import Backbone
from lamina.interop.export import write_encoder
from lamina.interop.fold_residual_decay import fold_fusion
from lamina.interop.foreign.methods import load_foreign_method
from lamina.interop.init_weights import init_from_file
from lamina.interop.load import load_encoder
from lamina.interop.resizing import copy_weights
from lamina.recipes.build import build_method
from lamina.train import checkpoint

LEAST = 0.6
NAME = "vit_tiny_patch16_224"
CLOSE = {"rtol": 0, "atol": 1e-3}  # the norms' epsilon


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def decayed(name: str = NAME, least: float | None = LEAST, fusion: str = "mff", **fused):
    """A method and its recipe; streams are of about one, as in a trained network."""
    recipe = toy_recipe(name, fusion=fusion)
    recipe = replace(
        recipe,
        encoder=replace(recipe.encoder, residual_decay=least),
        fusion=replace(recipe.fusion, **fused),
    )
    method = shaken(build_method(recipe))
    torch.manual_seed(0)
    torch.nn.init.normal_(method.encoder.vit.cls_token)
    encoder = Encoder(method.encoder.vit, residual_decay=least)
    method.encoder = encoder.eval()
    return method, recipe


@pytest.mark.parametrize("name", [NAME, "vit_small_patch16_dinov3"])
def test_plain_timm_gives_the_features_of_the_decayed_run(name, tmp_path, images):
    method, recipe = decayed(name)
    exported = write_encoder(method, recipe.encoder, recipe.fusion, tmp_path / "vit.safetensors", 3)
    config = json.loads(exported.config.read_text())
    vit = timm.create_model(config["architecture"], **config["model_args"]).eval()
    vit.load_state_dict(load_file(exported.weights), strict=True)
    expected = Backbone(method.encoder)(images)
    x = method.encoder.normalise(images)
    with torch.no_grad():
        theirs, raw = vit.forward_features(x), method.encoder.vit.forward_features(x)
    patches = slice(vit.num_prefix_tokens, None)
    torch.testing.assert_close(theirs[:, patches], expected.patches, **CLOSE)
    torch.testing.assert_close(theirs[:, 0], expected.cls, **CLOSE)
    assert (raw[:, patches] - expected.patches).abs().max() > 0.05
    assert config["lamina"]["folded_residual_decay"] == LEAST
    assert config["lamina"]["encoder"]["residual_decay"] is None


@pytest.mark.parametrize("pooling", ["average", "attention"])
@pytest.mark.parametrize("projection", ["none", "linear", "mlp"])
def test_fused_features_come_along_or_are_left_out_with_a_sentence(tmp_path, images, projection, pooling):
    method, recipe = decayed(projection=projection, pooling=pooling, heads=3)
    if pooling == "attention":
        method.fusion.pool.q.weight.data.mul_(3)  # so that taps weigh differently
    exported = write_encoder(method, recipe.encoder, recipe.fusion, tmp_path / "out", 3)
    was, now = Backbone(method.encoder, method.fusion), load_encoder(tmp_path / "out")
    if (projection, pooling) == ("none", "attention"):
        assert now.kinds == ("last",)
        assert exported.fusion is None
        assert not (tmp_path / "out" / "fusion.safetensors").exists()
        assert "without projections" in exported.left_out
        assert exported.left_out in str(exported)
        assert json.loads(exported.config.read_text())["lamina"]["fusion_left_out"] == exported.left_out
        return
    assert exported.left_out is None
    for kind in ("last", "fused"):
        torch.testing.assert_close(now(images, kind).patches, was(images, kind).patches, **CLOSE)
    unfolded = Backbone(now.encoder, method.fusion)
    assert (unfolded(images, "fused").patches - was(images, "fused").patches).abs().max() > 0.02


def test_fused_features_of_the_run_itself_are_those_of_the_papers_taps(images):
    method, _ = decayed(projection="linear")
    x = method.encoder(images, [0, 1, 2])
    w, p = method.fusion.pool.logits.softmax(0), method.fusion.projections
    expected = method.encoder.norm(w[0] * p[0](x[0]) + w[1] * p[1](x[1]) + w[2] * x[2])
    found = Backbone(method.encoder, method.fusion)(images, "fused").patches
    torch.testing.assert_close(found, expected[:, 1:], rtol=1e-5, atol=1e-5)


def test_a_mix_is_folded_exactly(images):
    method, _ = decayed()
    mix = LayerMix(96, 3, 2)
    taps, scales = method.encoder(images, mix.layers), method.encoder.tap_scales(mix.layers)
    plain = [tap / scale for tap, scale in zip(taps, scales, strict=True)]
    assert scales[0] == 1
    before = mix.weight.clone()
    norm = method.encoder.norm  # a mix has its own
    for ours, theirs in zip(fold_fusion(mix, scales)(plain, norm), mix(taps, norm), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(mix.weight, before)


def test_an_encoder_without_decay_is_written_as_it_is(tmp_path):
    method, recipe = decayed(least=None)
    exported = write_encoder(method, recipe.encoder, recipe.fusion, tmp_path / "vit.safetensors", 3)
    for name, tensor in method.encoder.vit.state_dict().items():
        assert torch.equal(load_file(exported.weights)[name], tensor)
    for name, tensor in method.fusion.state_dict().items():
        assert torch.equal(load_file(exported.fusion)[name], tensor)


def test_the_callback_folds_too(tmp_path, images):
    method, recipe = decayed()
    EncoderExport(tmp_path, recipe.encoder, recipe.fusion).on_checkpoint(3, tmp_path, method)
    kept = load_encoder(tmp_path)
    torch.testing.assert_close(kept(images).patches, Backbone(method.encoder)(images).patches, **CLOSE)


def fresh(least: float | None) -> Encoder:
    recipe = toy_recipe()
    return Encoder(build_vit(recipe.encoder), residual_decay=least).eval()


@pytest.mark.parametrize("ending", [".safetensors", ""])
def test_an_export_starts_a_run_with_what_it_computes(tmp_path, images, ending):
    method, recipe = decayed()
    exported = write_encoder(method, recipe.encoder, None, tmp_path / f"vit{ending}", 3)
    expected = Backbone(method.encoder)(images).patches
    for least in (LEAST, 0.8, None):
        encoder = fresh(least)
        init_from_file(encoder, exported.weights)
        torch.testing.assert_close(Backbone(encoder)(images).patches, expected, **CLOSE)
    same = fresh(LEAST)
    init_from_file(same, exported.weights)
    for name, tensor in method.encoder.vit.state_dict().items():
        torch.testing.assert_close(same.vit.state_dict()[name], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("least", [LEAST, 0.8, None])
def test_a_checkpoint_starts_an_encoder_of_any_decay_with_what_it_computes(tmp_path, images, least):
    method, _ = decayed()
    save_file(checkpoint.model_tensors(method), tmp_path / "model.safetensors")
    encoder = fresh(least)
    loaded = init_from_file(encoder, tmp_path / "model.safetensors")
    assert not [name for name in loaded.ignored if name.startswith("encoder.")]
    assert ("residual decay converted" in str(loaded)) == (least != LEAST)
    expected = Backbone(method.encoder)(images).patches
    torch.testing.assert_close(Backbone(encoder)(images).patches, expected, **CLOSE)
    if least == LEAST:
        weight = encoder.vit.blocks[2].mlp.fc2.weight
        assert torch.equal(weight, method.encoder.vit.blocks[2].mlp.fc2.weight)
    adopted = fresh(least)
    copy_weights(adopted, Backbone(method.encoder))
    torch.testing.assert_close(Backbone(adopted)(images).patches, expected, **CLOSE)


@pytest.mark.parametrize(
    "kept", ["RUN", "RUN/checkpoints/step-3", "RUN/checkpoints/step-3/model.safetensors"]
)
def test_weights_that_a_decayed_run_keeps_give_its_features(tmp_path, images, kept):
    recipe = decayed()[1]
    method = toy_run(tmp_path / "RUN", recipe)[3]
    found = load_encoder(tmp_path / kept)
    assert torch.equal(found(images).patches, Backbone(method.encoder)(images).patches)
    assert found.origin.step == 3
    with pytest.raises(LaminaError, match=r"lamina\.load_method"):
        load_foreign_method(tmp_path / "RUN/checkpoints/step-3")
    encoder = fresh(None)
    init_from_file(encoder, tmp_path / kept)
    plain = Encoder(encoder.vit).eval()
    torch.testing.assert_close(Backbone(plain)(images).patches, found(images).patches, **CLOSE)


def test_weights_taken_out_of_a_decayed_run_keep_their_decay(tmp_path, images):
    method, recipe = decayed()
    save_file(checkpoint.model_tensors(method), tmp_path / "model.safetensors")
    options = replace(recipe.encoder, residual_decay=None)
    found = load_encoder(tmp_path / "model.safetensors", encoder=options)
    assert torch.equal(found(images).patches, Backbone(method.encoder)(images).patches)
    with pytest.raises(LaminaError, match=r"trained with residual_decay 0\.6, not 0\.8"):
        load_encoder(tmp_path / "model.safetensors", encoder=replace(options, residual_decay=0.8))


def test_other_files_are_taken_as_they_are(tmp_path):
    vit = build_vit(replace(toy_recipe().encoder))
    save_file(vit.state_dict(), tmp_path / "theirs.safetensors")
    encoder = fresh(LEAST)
    init_from_file(encoder, tmp_path / "theirs.safetensors")
    assert torch.equal(encoder.vit.blocks[2].mlp.fc2.weight, vit.blocks[2].mlp.fc2.weight)


def test_a_folded_network_comes_back_from_a_lost_header(tmp_path, images):
    method, recipe = decayed()
    exported = write_encoder(method, recipe.encoder, None, tmp_path / "vit.safetensors", 3)
    save_file(load_file(exported.weights), exported.weights)
    encoder = fresh(LEAST)
    init_from_file(encoder, exported.weights)
    torch.testing.assert_close(
        Backbone(encoder)(images).patches, Backbone(method.encoder)(images).patches, **CLOSE
    )
