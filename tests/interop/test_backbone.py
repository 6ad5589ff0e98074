"""Last and fused features against their formulas, for encoders with and without class token and registers."""

from dataclasses import replace

import pytest
import timm
import torch
from timm.layers.pos_embed import resample_abs_pos_embed

from helpers.runs import NAMES, shaken, toy_recipe, toy_run
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder, untrained_like
from lamina.interop.resizing import copy_weights
from lamina.recipes.build import build_method


@pytest.mark.parametrize("name", NAMES)
def test_last_and_fused_are_their_formulas(name):
    method = shaken(build_method(toy_recipe(name)))
    backbone, vit = Backbone(method.encoder, method.fusion), method.encoder.vit
    images = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    normalised = (images / 255 - method.encoder.mean) / method.encoder.std
    found = backbone.every(images)
    expected = vit.forward_features(normalised)
    assert torch.equal(found["last"].patches, expected[:, vit.num_prefix_tokens :])
    x = vit.forward_intermediates(
        normalised, indices=[0, 1, 2], norm=False, output_fmt="NLC", intermediates_only=True
    )
    w = method.fusion.pool.logits.softmax(0)
    p = method.fusion.projections
    fused = vit.norm(w[0] * p[0](x[0]) + w[1] * p[1](x[1]) + w[2] * x[2])
    torch.testing.assert_close(found["fused"].patches, fused, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["fused"].pooled("mean"), fused.mean(1), rtol=1e-4, atol=1e-4)
    if vit.cls_token is None:
        assert backbone.pools == ("mean",)
        with pytest.raises(LaminaError, match="no class token"):
            found["last"].pooled("cls")
    else:
        assert backbone.pools == ("cls", "mean")
        assert torch.equal(found["last"].pooled("cls"), expected[:, 0])
    assert torch.equal(backbone(images, "fused").patches, found["fused"].patches)


def test_fused_is_refused_without_a_fusion():
    method = build_method(toy_recipe(fusion="none"))
    backbone = Backbone(method.encoder, method.fusion)
    assert backbone.kinds == ("last",)
    with pytest.raises(LaminaError, match="no fusion"):
        backbone(torch.rand(1, 3, 32, 48), "fused")
    with pytest.raises(LaminaError, match="no features 'first'"):
        backbone(torch.rand(1, 3, 32, 48), "first")


def test_a_backbone_is_frozen():
    method = build_method(toy_recipe()).train()
    backbone = Backbone(method.encoder, method.fusion)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(m.training for m in backbone.modules())


def test_the_untrained_twin_is_the_run_before_its_first_step(tmp_path):
    recipe = toy_recipe()
    toy_run(tmp_path / "run", recipe)
    first, other = (
        untrained_like(load_encoder(tmp_path / "run")),
        untrained_like(load_encoder(tmp_path / "run"), 7),
    )
    expected = build_method(recipe).encoder.vit.state_dict()
    found = first.encoder.vit.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(other.encoder.vit.blocks[0].mlp.fc1.weight, found["blocks.0.mlp.fc1.weight"])
    assert first.kinds == ("last", "fused")


def test_a_step_is_found_by_name_and_by_folder(tmp_path):
    methods = toy_run(tmp_path / "run", toy_recipe(), steps=(3, 10))
    for spec, step in (("run", 10), ("run@3", 3), ("run/checkpoints/step-3", 3)):
        backbone = load_encoder(tmp_path / spec)
        assert backbone.origin.step == step
        weight = backbone.encoder.vit.blocks[0].mlp.fc1.weight
        assert torch.equal(weight, methods[step].encoder.vit.blocks[0].mlp.fc1.weight)
    with pytest.raises(LaminaError, match="no checkpoint of step 4"):
        load_encoder(tmp_path / "run@4")


def test_a_timm_name_untrained(monkeypatch):
    backbone = load_encoder("timm/vit_tiny_patch16_224.augreg_in21k", pretrained=False)
    assert backbone.image_size == (224, 224)
    assert backbone.encoder.mean.flatten().tolist() == [0.5, 0.5, 0.5]  # that model's own
    assert isinstance(backbone.encoder.vit, type(build_vit(toy_recipe().encoder)))
    assert untrained_like(backbone).kinds == ("last",)


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch):
    create = timm.create_model

    def offline(name, pretrained=False, **arguments):
        if pretrained:
            raise OSError("no network\nand a long story")
        return create(name, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(LaminaError, match=r"could not be loaded \(no network\)"):
        load_encoder("timm/vit_tiny_patch16_224")


def test_what_is_called_nothing_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for spec, sentence in (
        ("nowhere", "no encoder 'nowhere'"),
        (tmp_path / "empty", "neither a run nor"),
    ):
        with pytest.raises(LaminaError, match=sentence):
            load_encoder(spec)


def test_untrained_before_a_name(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    trained = load_encoder(tmp_path / "run")
    named, twin = load_encoder(f"untrained:{tmp_path / 'run'}"), untrained_like(trained)
    for (name, a), b in zip(named.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert load_encoder("untrained:timm/vit_tiny_patch16_224").encoder.width == 192


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_of_another_size_adopts_the_weights(name, tmp_path):
    """Of the same size it computes the same; of another, positions are timm's resampling of the true grid."""
    toy_run(tmp_path / "run", toy_recipe(name))
    backbone = load_encoder(tmp_path / "run")
    options = backbone.origin.recipe.encoder
    same, larger = (wrap_vit(build_vit(o), o) for o in (options, replace(options, image_size=(48, 64))))
    assert not copy_weights(same, backbone)
    images = torch.rand(2, 3, 32, 48)
    assert torch.equal(same.eval()(images, (2,))[0], backbone.encoder(images, (2,))[0])
    own = backbone.encoder.vit.pos_embed
    assert copy_weights(larger, backbone) == (own is not None)
    if own is not None:
        prefix = own.shape[1] - 24
        expected = resample_abs_pos_embed(own, [6, 8], [4, 6], num_prefix_tokens=prefix)
        torch.testing.assert_close(larger.vit.pos_embed, expected)
    assert larger(torch.rand(1, 3, 48, 64), (2,))[0].isfinite().all()


def test_another_network_does_not_adopt(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    backbone = load_encoder(tmp_path / "run")
    options = backbone.origin.recipe.encoder
    for change, sentence in (({"depth": 2}, "unexpected"), ({"heads": 6}, "3 attention heads, .* has 6")):
        with pytest.raises(LaminaError, match=sentence):
            copy_weights(
                wrap_vit(build_vit(replace(options, **change)), replace(options, **change)), backbone
            )
