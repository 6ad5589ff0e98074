"""An exported encoder in plain timm: no key missing or left over, and the same features bit for bit."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import lamina
from helpers.options import TINY_NETWORK
from helpers.runs import NAMES, toy_recipe, toy_run
from lamina.callbacks.export_encoder import EncoderExport
from lamina.core.errors import LaminaError
from lamina.interop.export import export_timm
from lamina.interop.load import load_encoder


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
def test_plain_timm_gives_the_same_features(name, tmp_path, images):
    toy_run(tmp_path / "run", toy_recipe(name, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)))
    exported = export_timm(tmp_path / "run", tmp_path / "vit.safetensors")
    config = json.loads(exported.config.read_text())
    vit = timm.create_model(config["architecture"], **config["model_args"]).eval()
    vit.load_state_dict(load_file(exported.weights), strict=True)
    mean, std = (torch.tensor(config["pretrained_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        features = vit.forward_features((images - mean) / std)
    backbone = load_encoder(tmp_path / "run")
    found = backbone(images)
    assert torch.equal(features[:, vit.num_prefix_tokens :], found.patches)
    assert found.cls is None or torch.equal(features[:, 0], found.cls)
    assert vit(images).shape == (2, 96)  # its own pooling works


@pytest.mark.parametrize("kind", ["shared", "per_block", "none"])
def test_plain_timm_gives_the_same_features_of_a_beit(kind, tmp_path, images):
    recipe = toy_recipe("beit_base_patch16_224", hide="replace", relative_positions=kind, layer_scale=0.1)
    recipe = replace(recipe, decoder=replace(recipe.decoder, kind="linear"))
    toy_run(tmp_path / "run", recipe)
    exported = export_timm(tmp_path / "run", tmp_path / "encoder")
    config = json.loads(exported.config.read_text())
    vit = timm.create_model(config["architecture"], num_classes=0, **config["model_args"]).eval()
    vit.load_state_dict(load_file(exported.weights), strict=True)
    run, kept = load_encoder(tmp_path / "run"), load_encoder(tmp_path / "encoder")
    with torch.no_grad():
        features = vit.forward_features(run.encoder.normalise(images))
    assert torch.equal(features[:, 0], run(images).cls)
    for kind in ("last", "fused"):
        assert torch.equal(run(images, kind).patches, kept(images, kind).patches)
    assert torch.equal(features[:, 1:], kept(images).patches)
    assert vit(images).shape == (2, 96)
    itself = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True).eval()
    with torch.no_grad():
        assert torch.equal(itself.forward_features(run.encoder.normalise(images)), features)


def test_timm_reads_the_folder_by_itself(tmp_path, images):
    toy_run(tmp_path / "run", toy_recipe())
    export_timm(tmp_path / "run", tmp_path / "encoder")
    assert {f.name for f in (tmp_path / "encoder").iterdir()} == {
        "model.safetensors",
        "config.json",
        "fusion.safetensors",
    }
    vit = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True).eval()
    assert vit.pretrained_cfg["input_size"] == (3, 32, 48) or vit.pretrained_cfg["input_size"] == [3, 32, 48]
    encoder = load_encoder(tmp_path / "run").encoder
    with torch.no_grad():
        assert torch.equal(
            vit.forward_features(encoder.normalise(images)), encoder.norm(encoder(images, [2])[0])
        )
    classifier = timm.create_model(f"local-dir:{tmp_path / 'encoder'}", pretrained=True, num_classes=5)
    assert classifier(images).shape == (2, 5)


def test_the_crop_of_evaluations_comes_along(tmp_path):
    recipe = toy_recipe()
    toy_run(tmp_path / "run", replace(recipe, data=replace(recipe.data, eval_crop_share=1.0)))
    exported = export_timm(tmp_path / "run", tmp_path / "vit.safetensors")
    assert json.loads(exported.config.read_text())["pretrained_cfg"]["crop_pct"] == 1.0
    assert load_encoder(exported.weights).origin.recipe.data.eval_crop_share == 1.0


@pytest.mark.parametrize("fusion", ["mff", "none"])
@pytest.mark.parametrize("out", ["vit.safetensors", "folder"])
def test_an_export_comes_back_with_its_fusion_and_step(tmp_path, images, fusion, out):
    toy_run(tmp_path / "run", toy_recipe(fusion=fusion), steps=(3, 5))
    exported = export_timm(f"{tmp_path / 'run'}@3", tmp_path / out)
    assert (exported.fusion is None) == (fusion == "none")
    was, now = load_encoder(f"{tmp_path / 'run'}@3"), load_encoder(tmp_path / out)
    assert now.origin.step == 3
    assert now.kinds == was.kinds
    for kind in was.kinds:
        assert torch.equal(was(images, kind).patches, now(images, kind).patches)


def test_a_lost_header_is_made_up_for_by_the_json(tmp_path, images):
    toy_run(tmp_path / "run", toy_recipe())
    exported = export_timm(tmp_path / "run", tmp_path / "vit.safetensors")
    save_file(load_file(exported.weights), exported.weights)
    assert load_encoder(exported.weights).origin.step == 3
    exported.config.unlink()
    with pytest.raises(LaminaError, match="--encoder"):
        load_encoder(exported.weights)


def test_a_lost_fusion_file_costs_the_fused_features_alone(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    exported = export_timm(tmp_path / "run", tmp_path / "vit.safetensors")
    exported.fusion.unlink()
    assert load_encoder(exported.weights).kinds == ("last",)


def test_the_callback_keeps_the_newest_encoder(tmp_path, images):
    recipe = toy_recipe()
    methods = toy_run(tmp_path / "run", recipe, steps=(3, 5))
    callback = EncoderExport(tmp_path / "run" / "encoder", recipe.encoder, recipe.fusion)
    for step, method in methods.items():
        callback.on_checkpoint(step, tmp_path, method)
    newest, kept = load_encoder(tmp_path / "run"), load_encoder(tmp_path / "run" / "encoder")
    assert kept.origin.step == 5
    assert torch.equal(newest(images, "fused").patches, kept(images, "fused").patches)


def test_an_odd_ending_is_refused(tmp_path):
    toy_run(tmp_path / "run", toy_recipe())
    with pytest.raises(LaminaError, match="safetensors"):
        export_timm(tmp_path / "run", tmp_path / "vit.pth")


def test_the_fusion_of_another_export_is_not_left_beside_weights_without_one(tmp_path):
    recipe = toy_recipe()
    for name, kind in (("with", "mff"), ("without", "none")):
        toy_run(tmp_path / name, replace(recipe, fusion=replace(recipe.fusion, kind=kind)))
    exported = export_timm(tmp_path / "with", tmp_path / "vit.safetensors")
    before = exported.weights.read_bytes()
    with pytest.raises(LaminaError, match=r"vit\.fusion\.safetensors belongs to another export"):
        export_timm(tmp_path / "without", tmp_path / "vit.safetensors")
    assert exported.weights.read_bytes() == before
    exported.fusion.unlink()
    assert export_timm(tmp_path / "without", tmp_path / "vit.safetensors").fusion is None


@pytest.mark.parametrize("place", ["encoder", "encoder/model.safetensors"])
def test_the_weights_that_a_run_keeps_of_itself_load(tmp_path, images, place):
    recipe = toy_recipe()
    (method,) = toy_run(tmp_path / "run", recipe).values()
    EncoderExport(tmp_path / "run" / "encoder", recipe.encoder, recipe.fusion).on_checkpoint(
        3, tmp_path, method
    )
    run, kept = load_encoder(tmp_path / "run"), load_encoder(tmp_path / "run" / place)
    assert kept.origin.step == 3
    for kind in ("last", "fused"):
        for mine, theirs in zip(kept(images, kind), run(images, kind), strict=True):
            assert torch.equal(mine, theirs)


def test_a_network_with_an_attention_pool_comes_back(tmp_path):
    """Its pool is taken off for masked modelling, so its export has none."""
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 4, "workers": 0, "max_steps": 1}
    out = tmp_path / "run"
    encoder = "vit_base_patch16_siglip_224"
    lamina.pretrain(
        "sample:photos?crop=16&most=1", out, "mae-small", options=TINY_NETWORK, encoder=encoder, **sizes
    )
    exported = lamina.export_timm(out, tmp_path / "vit.safetensors")
    images = torch.rand(2, 3, 16, 16)
    own, handed = (lamina.load_encoder(place)(images).patches for place in (out, exported.weights))
    assert torch.equal(own, handed)
