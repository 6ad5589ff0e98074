"""What others trained, written by the peer's own class or under documented names, computes the same here."""

import argparse
import dataclasses
import json
import re
import sys
import types
import warnings

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from helpers.foreign_files import (
    DEC_DEPTH,
    DEC_HEADS,
    DEC_WIDTH,
    DEPTH,
    GRID,
    HEADS,
    HEADS_GIVEN,
    MM,
    PATCH,
    SIZE,
    SIZES,
    WIDTH,
    beit_file,
    beit_recipe,
    block,
    embedded,
    linear,
    loss_of,
    mae_file,
    mm_file,
    noise,
    published_loss,
    saved,
    table,
    transformers,
)
from helpers.runs import shaken, toy_recipe, toy_run
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.patches import sincos_2d
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.interop.export import export_timm
from lamina.interop.foreign import read_foreign
from lamina.interop.foreign.methods import load_foreign_method
from lamina.interop.foreign.read_file import read_weights
from lamina.interop.load import load_encoder, load_projected, weights_of
from lamina.interop.load_weights import load_weights_into
from lamina.recipes.build import build_method, resolve
from lamina.train import checkpoint


@pytest.fixture
def images():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask():
    order = torch.rand(2, 16, generator=torch.Generator().manual_seed(2)).argsort(1)
    return order >= 4


def vit_mae(folder, **changes):
    t = transformers()
    decoder = {
        "decoder_hidden_size": DEC_WIDTH,
        "decoder_num_hidden_layers": DEC_DEPTH,
        "decoder_num_attention_heads": DEC_HEADS,
        "decoder_intermediate_size": 4 * DEC_WIDTH,
    }
    model = shaken(t.ViTMAEForPreTraining(t.ViTMAEConfig(**SIZES, **decoder, **changes)))
    model.vit.embeddings.initialize_weights()
    model.decoder.initialize_weights(16)
    model.save_pretrained(folder)
    return model.eval()


@pytest.mark.parametrize("norm_pix", [True, False])
def test_a_vit_mae_folder_is_a_whole_method(tmp_path, images, mask, norm_pix):
    peer = vit_mae(tmp_path / "mae", norm_pix_loss=norm_pix)
    method, recipe = load_foreign_method(tmp_path / "mae")
    assert (recipe.decoder.width, recipe.decoder.depth, recipe.decoder.heads) == (
        DEC_WIDTH,
        DEC_DEPTH,
        DEC_HEADS,
    )
    assert (recipe.encoder.heads, recipe.target.norm_pix, recipe.fusion.kind) == (HEADS, norm_pix, "none")
    theirs = peer(method.encoder.normalise(images), noise=mask.float()).loss
    ours = method(Batch(images, sample_keys(0, 0, torch.arange(2)), mask))["loss"]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["ViTMAEModel", "ViTModel", "ViTForImageClassification"])
def test_features_of_transformers_vits(tmp_path, images, kind):
    t = transformers()
    if kind == "ViTMAEModel":
        peer = vit_mae(tmp_path / "vit").vit
        peer.config.mask_ratio = 0.0

        def call(x):
            return peer(x, noise=torch.arange(16.0).expand(2, -1))
    else:
        model = saved(getattr(t, kind)(t.ViTConfig(**SIZES)), tmp_path / "vit")
        peer = call = model if kind == "ViTModel" else model.vit
    backbone = load_encoder(tmp_path / "vit")
    with torch.no_grad():
        theirs = call(backbone.encoder.normalise(images)).last_hidden_state
        ours = backbone(images)
    torch.testing.assert_close(ours.cls, theirs[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)
    mean = 0.485 if kind == "ViTMAEModel" else 0.5
    assert backbone.encoder.mean.flatten()[0].item() == pytest.approx(mean)


def test_the_statistics_of_a_folder_are_its_own(tmp_path):
    t = transformers()
    saved(t.ViTModel(t.ViTConfig(**SIZES)), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
    )
    assert load_encoder(tmp_path).encoder.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    vit = build_vit(EncoderOptions("vit_tiny_patch16_224", (SIZE, SIZE), PATCH, 3, WIDTH, DEPTH, HEADS))
    loaded = load_weights_into(vit, tmp_path)
    assert loaded.mean == (0.1, 0.2, 0.3)
    assert loaded.other_statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)) is None
    assert "0.1 0.2 0.3" in loaded.other_statistics((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("kind", ["CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel"])
def test_features_of_clip_towers(tmp_path, images, kind, act):
    t = transformers()
    if kind == "CLIPModel":
        text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        config = t.CLIPConfig(vision_config={**SIZES, "hidden_act": act}, text_config=text, projection_dim=24)
    else:
        config = t.CLIPVisionConfig(**SIZES, hidden_act=act, projection_dim=24)
    model = saved(getattr(t, kind)(config), tmp_path)
    backbone = load_encoder(tmp_path)
    x = backbone.encoder.normalise(images)
    tower = getattr(model, "vision_model", model)
    with torch.no_grad():
        theirs = tower(pixel_values=x)
        ours = backbone(images)
        post = tower.post_layernorm if hasattr(tower, "post_layernorm") else tower.vision_model.post_layernorm
        torch.testing.assert_close(ours.patches, post(theirs.last_hidden_state)[:, 1:], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.cls, theirs.pooler_output, rtol=1e-5, atol=1e-5)
        assert backbone.encoder.mean.flatten()[0].item() == pytest.approx(0.48145466)
        if kind == "CLIPVisionModel":
            with pytest.raises(LaminaError, match="without a projection"):
                load_projected(tmp_path)
            return
        vit, mean, _ = load_projected(tmp_path)
        assert mean[0] == pytest.approx(0.48145466)
        torch.testing.assert_close(
            vit(x), model.visual_projection(theirs.pooler_output), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "DINOv3ViT"])
def test_features_of_dino_folders(tmp_path, images, kind):
    t = transformers()
    sizes = {**SIZES, "mlp_ratio": 4}
    if kind != "Dinov2":
        sizes["num_register_tokens"] = 4
    model = saved(getattr(t, f"{kind}Model")(getattr(t, f"{kind}Config")(**sizes)), tmp_path)
    backbone = load_encoder(tmp_path)
    with torch.no_grad():
        theirs = model(backbone.encoder.normalise(images)).last_hidden_state
        ours = backbone(images)
    torch.testing.assert_close(ours.cls, theirs[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.patches, theirs[:, -16:], rtol=1e-5, atol=1e-5)


# --- published names, written out -----------------------------------------------------------------------


@pytest.mark.parametrize("norm_pix", [True, False])
def test_a_mae_checkpoint_is_a_whole_method(tmp_path, images, mask, norm_pix):
    w = mae_file(table())
    args = argparse.Namespace(model="mae_vit_base_patch16", norm_pix_loss=norm_pix, mask_ratio=0.75)
    torch.save({"model": w, "epoch": 3, "args": args}, tmp_path / "mae.pth")
    method, recipe = load_foreign_method(tmp_path / "mae.pth", encoder=HEADS_GIVEN, decoder_heads=DEC_HEADS)
    assert recipe.masking.mask_ratio == 0.75
    theirs = published_loss(w, method.encoder.normalise(images), mask, mm=False, norm_pix=norm_pix)
    torch.testing.assert_close(loss_of(method, images, mask), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("taps", [(), (0, 2), (0, 1, 2)])
def test_mmpretrain_files_are_whole_methods(tmp_path, images, mask, taps):
    w = mm_file(table(rows_first=True), len(taps))
    meta = {
        "cfg": f"model = dict(backbone=dict(type='MFFViT', out_indices={list(taps)}), head=dict(norm_pix=True))"
    }
    torch.save({"meta": meta, "state_dict": w}, tmp_path / "mff.pth")
    method, recipe = load_foreign_method(tmp_path / "mff.pth", encoder=HEADS_GIVEN, decoder_heads=DEC_HEADS)
    assert recipe.fusion.kind == ("mff" if taps else "none")
    assert not taps or recipe.fusion.layers == taps
    x = method.encoder.normalise(images)
    theirs = published_loss(w, x, mask, mm=True, taps=taps)
    torch.testing.assert_close(loss_of(method, images, mask), theirs, rtol=1e-5, atol=1e-5)
    backbone = load_encoder(tmp_path / "mff.pth", encoder=HEADS_GIVEN)
    assert backbone.kinds == (("last", "fused") if taps else ("last",))
    patches, cls = embedded(w, "backbone.", x)
    z = torch.cat([cls.expand(2, -1, -1), patches], 1)
    for i in range(DEPTH):
        z = block(z, w, f"backbone.layers.{i}", MM, HEADS)
    z = F.layer_norm(z, (WIDTH,), w["backbone.ln1.weight"], w["backbone.ln1.bias"], eps=1e-6)
    torch.testing.assert_close(backbone(images).patches, z[:, 1:], rtol=1e-5, atol=1e-5)


def test_mff_without_a_configuration_must_be_told_its_layers(tmp_path, images, mask):
    w = mm_file(table(rows_first=True), 2)
    torch.save({"state_dict": w}, tmp_path / "mff.pth")
    given = {"encoder": HEADS_GIVEN, "decoder_heads": DEC_HEADS}
    with pytest.raises(LaminaError, match="give their numbers with layers="):
        load_foreign_method(tmp_path / "mff.pth", **given)
    method, _ = load_foreign_method(tmp_path / "mff.pth", layers=(1, 2), **given)
    theirs = published_loss(w, method.encoder.normalise(images), mask, mm=True, taps=(1, 2))
    torch.testing.assert_close(loss_of(method, images, mask), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["layers.1.attn.gamma1.weight", "layers.0.ffn.gamma2.weight", "pre_norm.weight"]
)
def test_what_would_change_the_features_is_not_left_out(tmp_path, name):
    w = mm_file(table(rows_first=True)) | {f"backbone.{name}": noise(WIDTH)}
    torch.save({"state_dict": w}, tmp_path / "vit.pth")
    with pytest.raises(LaminaError, match="unexpected"):
        load_encoder(tmp_path / "vit.pth", encoder=HEADS_GIVEN)


def test_usual_widths_have_their_usual_heads(tmp_path, images):
    vit = shaken(build_vit(EncoderOptions("vit_tiny_patch16_224", (SIZE, SIZE), PATCH, depth=1)))
    torch.save(
        {"model": {**vit.state_dict(), **linear("decoder_embed", DEC_WIDTH, 192)}}, tmp_path / "mae.pth"
    )
    assert "3 heads, usual for width 192" in read_foreign(tmp_path / "mae.pth").assumed
    backbone = load_encoder(tmp_path / "mae.pth")
    with torch.no_grad():
        theirs = vit.forward_features(backbone.encoder.normalise(images))
    torch.testing.assert_close(backbone(images).patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)


def test_learned_decoder_positions_are_refused(tmp_path):
    torch.save({"model": mae_file(noise(1, 17, DEC_WIDTH))}, tmp_path / "mae.pth")
    with pytest.raises(LaminaError, match=r"no place for its decoder.s positions; load the encoder alone"):
        load_foreign_method(tmp_path / "mae.pth", encoder=HEADS_GIVEN, decoder_heads=DEC_HEADS)
    assert load_encoder(tmp_path / "mae.pth", encoder=HEADS_GIVEN).encoder.depth == DEPTH


def test_heads_are_asked_for_where_nothing_tells(tmp_path):
    torch.save({"model": mae_file(table())}, tmp_path / "mae.pth")
    with pytest.raises(LaminaError, match="how many attention heads"):
        load_encoder(tmp_path / "mae.pth")


# --- BEiT and SimMIM ------------------------------------------------------------------------------------


def beit_tokens(w, x):
    """BEiT's forward on whole images: relative position biases on all pairs, residual branches scaled."""
    patches = (
        F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=PATCH)
        .flatten(2)
        .transpose(1, 2)
    )
    z = torch.cat([w["cls_token"].expand(len(x), -1, -1), patches], 1)
    g = GRID[0]
    n = (2 * g - 1) ** 2 + 3
    index = torch.empty(17, 17, dtype=torch.long)
    for a in range(16):
        for b in range(16):
            dy, dx = a // g - b // g, a % g - b % g
            index[1 + a, 1 + b] = (dy + g - 1) * (2 * g - 1) + dx + g - 1
    index[0, :], index[:, 0], index[0, 0] = n - 3, n - 2, n - 1
    for i in range(DEPTH):
        p = f"blocks.{i}."
        t = w.get("rel_pos_bias.relative_position_bias_table", w.get(p + "attn.relative_position_bias_table"))
        h = F.layer_norm(z, (WIDTH,), w[p + "norm1.weight"], w[p + "norm1.bias"], eps=1e-6)
        bias = torch.cat([w[p + "attn.q_bias"], torch.zeros(WIDTH), w[p + "attn.v_bias"]])
        q, k, v = (
            F.linear(h, w[p + "attn.qkv.weight"], bias)
            .reshape(len(x), 17, 3, HEADS, -1)
            .permute(2, 0, 3, 1, 4)
        )
        a = (q @ k.transpose(-2, -1) / (WIDTH // HEADS) ** 0.5 + t[index].permute(2, 0, 1)).softmax(-1) @ v
        a = F.linear(a.transpose(1, 2).flatten(2), w[p + "attn.proj.weight"], w[p + "attn.proj.bias"])
        z = z + w[p + "gamma_1"] * a
        h = F.layer_norm(z, (WIDTH,), w[p + "norm2.weight"], w[p + "norm2.bias"], eps=1e-6)
        h = F.gelu(F.linear(h, w[p + "mlp.fc1.weight"], w[p + "mlp.fc1.bias"]))
        z = z + w[p + "gamma_2"] * F.linear(h, w[p + "mlp.fc2.weight"], w[p + "mlp.fc2.bias"])
    return F.layer_norm(z, (WIDTH,), w["norm.weight"], w["norm.bias"], eps=1e-6)


class CfgNode(dict):
    """yacs keeps its configuration in a class of dictionaries, and SimMIM keeps that in its checkpoints."""


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_beit_and_simmim_files(tmp_path, images, monkeypatch, prefix, shared):
    w = beit_file(prefix, shared)
    module = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    monkeypatch.setattr(CfgNode, "__module__", "yacs.config")
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    config = CfgNode(MODEL=CfgNode(TYPE="vit"))
    config.__dict__["__immutable__"] = True
    torch.save({"model": w, "config": config}, tmp_path / "beit.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    backbone = load_encoder(tmp_path / "beit.pth")
    own = {k.removeprefix(prefix): v for k, v in w.items()}
    theirs = beit_tokens(own, backbone.encoder.normalise(images))
    torch.testing.assert_close(backbone(images).cls, theirs[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(backbone(images).patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)
    assert backbone.encoder.mean.flatten()[0].item() == pytest.approx(0.485 if prefix else 0.5)


def test_a_shared_table_is_given_to_blocks_that_have_their_own(tmp_path, images):
    w = beit_file()
    torch.save({"model": w}, tmp_path / "beit.pth")
    options = EncoderOptions(
        "beit_base_patch16_224",
        (SIZE, SIZE),
        PATCH,
        3,
        WIDTH,
        DEPTH,
        HEADS,
        relative_positions="per_block",
        hide="replace",
    )
    backbone = load_encoder(tmp_path / "beit.pth", encoder=options)
    theirs = beit_tokens(w, backbone.encoder.normalise(images))
    torch.testing.assert_close(backbone(images).patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)


def test_relative_positions_are_resampled_as_timm_does(tmp_path):
    w = beit_file()
    torch.save({"model": w}, tmp_path / "beit.pth")
    options = EncoderOptions(
        "beit_base_patch16_224", (48, 48), PATCH, 3, WIDTH, DEPTH, HEADS, relative_positions="shared"
    )
    vit = build_vit(options)
    loaded = load_weights_into(vit, tmp_path / "beit.pth")
    assert loaded.resampled
    name = "rel_pos_bias.relative_position_bias_table"
    expected = timm.layers.resize_rel_pos_bias_table(
        w[name], new_window_size=(6, 6), new_bias_shape=(11 * 11 + 3, HEADS)
    )
    torch.testing.assert_close(vit.state_dict()[name], expected)
    assert "lm_head.weight" in loaded.ignored


# --- everything else ------------------------------------------------------------------------------------


class HistoryBuffer:
    def __init__(self):
        self.log = torch.zeros(2).numpy()
        self.method = HistoryBuffer.mean

    def mean(self):
        raise AssertionError("a log is not asked")


def test_the_logs_in_mmengine_checkpoints_are_passed_over(tmp_path, monkeypatch):
    place = "mmengine.logging.history_buffer"
    module = types.ModuleType(place)
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setattr(HistoryBuffer, "__module__", place)
    monkeypatch.setattr(HistoryBuffer.mean, "__module__", place)
    for i in range(1, 4):
        monkeypatch.setitem(sys.modules, ".".join(place.split(".")[:i]), types.ModuleType("x"))
    monkeypatch.setitem(sys.modules, place, module)
    w = mm_file(table(rows_first=True))
    torch.save({"state_dict": w, "message_hub": {"log": HistoryBuffer()}}, tmp_path / "epoch_3.pth")
    monkeypatch.delitem(sys.modules, place)
    assert read_weights(tmp_path / "epoch_3.pth").keys() == w.keys()


def test_a_timm_folder_says_which_network_it_is(tmp_path, images):
    vit = shaken(
        build_vit(EncoderOptions("vit_tiny_patch16_224", (SIZE, SIZE), PATCH, 3, WIDTH, DEPTH, HEADS))
    )
    save_file(vit.state_dict(), tmp_path / "model.safetensors")
    feed = {"input_size": [3, SIZE, SIZE], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    arguments = {
        "img_size": SIZE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": DEPTH,
        "num_heads": HEADS,
    }
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_tiny_patch16_224", "model_args": arguments, "pretrained_cfg": feed})
    )
    backbone = load_encoder(tmp_path)
    with torch.no_grad():
        theirs = vit.forward_features((images - 0.5) / 0.5)
    torch.testing.assert_close(backbone(images).patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)


def test_shards_are_read_together_and_none_outside_their_folder(tmp_path):
    folder = tmp_path / "vit"
    folder.mkdir()
    w = mm_file(table(rows_first=True))
    half = len(w) // 2
    parts = {"a.safetensors": dict([*w.items()][:half]), "b.safetensors": dict([*w.items()][half:])}
    for name, part in parts.items():
        save_file({k: v.contiguous() for k, v in part.items()}, folder / name)
    index = {"weight_map": {k: name for name, part in parts.items() for k in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(folder).keys() == w.keys()
    index["weight_map"]["x"] = "../a.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LaminaError, match="outside its folder"):
        read_weights(folder)


@pytest.mark.parametrize("file", [mae_file, mm_file, beit_file])
@pytest.mark.parametrize(
    "lost", ["pos_embed|.*bias_table", "blocks.*|layers.*", "norm.*|ln1.*", "proj.weight|projection.weight"]
)
def test_a_file_that_was_cut_short_is_one_line(tmp_path, file, lost):
    w = file() if file is beit_file else file(table())
    part = {k: v for k, v in w.items() if not re.search(rf"(?:^|\.)(?:{lost})$", k)}
    assert len(part) < len(w)
    torch.save({"model": part}, tmp_path / "cut.pth")
    with pytest.raises(LaminaError) as caught:
        load_encoder(tmp_path / "cut.pth", encoder=HEADS_GIVEN)
    assert "\n" not in str(caught.value)
    assert "cut.pth" in str(caught.value)


def test_truncated_bytes_and_a_broken_configuration_are_one_line(tmp_path):
    torch.save({"model": mae_file(table())}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    save_file({"x": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    for path, sentence in (
        (tmp_path / "cut.pth", "damaged"),
        (tmp_path, "config.json cannot be used: it is no JSON"),
    ):
        with pytest.raises(LaminaError, match=sentence) as caught:
            load_encoder(path)
        assert "\n" not in str(caught.value)


def test_a_network_of_another_size_is_one_line(tmp_path):
    torch.save({"model": mae_file(table())}, tmp_path / "mae.pth")
    vit = build_vit(EncoderOptions("vit_tiny_patch16_224", (SIZE, SIZE), PATCH, 3, 96, DEPTH, HEADS))
    with pytest.raises(LaminaError, match=r"does not fit this network: .* in the file") as caught:
        load_weights_into(vit, tmp_path / "mae.pth")
    assert "\n" not in str(caught.value)


def test_a_mix_for_each_decoder_block_is_no_fused_feature(tmp_path):
    recipe = toy_recipe()
    decoder = dataclasses.replace(recipe.decoder, kind="cross", depth=2)
    fusion = dataclasses.replace(recipe.fusion, kind="mix")
    toy_run(tmp_path / "run", dataclasses.replace(recipe, decoder=decoder, fusion=fusion))
    assert load_encoder(tmp_path / "run").kinds == ("last",)


def test_a_grid_that_is_no_square_is_asked_for(tmp_path, images):
    w = mae_file(table())
    w["pos_embed"] = noise(1, 1 + 2 * 4, WIDTH)
    torch.save({"model": w}, tmp_path / "mae.pth")
    with pytest.raises(LaminaError, match="not a square; give"):
        load_encoder(tmp_path / "mae.pth", encoder=HEADS_GIVEN)
    options = dataclasses.replace(HEADS_GIVEN, image_size=(2 * PATCH, 4 * PATCH))
    backbone = load_encoder(tmp_path / "mae.pth", encoder=options)
    assert backbone(images[:, :, : 2 * PATCH]).patches.shape == (2, 8, WIDTH)


def test_a_beit_run_starts_another(tmp_path):
    method = build_method(resolve(beit_recipe()))
    save_file(checkpoint.model_tensors(method), tmp_path / "model.safetensors")
    vit = build_vit(resolve(beit_recipe()).encoder)
    loaded = load_weights_into(vit, tmp_path / "model.safetensors")
    assert loaded.title == "a checkpoint of lamina"
    for name, tensor in method.encoder.vit.state_dict().items():
        assert torch.equal(vit.state_dict()[name], tensor)


@pytest.mark.parametrize("spec", ["run", "run@3", "run/checkpoints/step-3"])
def test_a_run_is_where_training_starts_from(tmp_path, spec):
    recipe = toy_recipe(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    methods = toy_run(tmp_path / "run", recipe, steps=(3,))
    vit = build_vit(recipe.encoder)
    loaded = load_weights_into(vit, weights_of(f"{tmp_path}/{spec}"))
    assert (loaded.mean, loaded.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for name, tensor in methods[3].encoder.vit.state_dict().items():
        assert torch.equal(vit.state_dict()[name], tensor)
    assert weights_of(tmp_path / "x.pth") == tmp_path / "x.pth"


def test_an_export_says_its_statistics(tmp_path):
    recipe = toy_recipe(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    toy_run(tmp_path / "run", recipe)
    for out in ("vit.safetensors", "folder"):
        export_timm(tmp_path / "run", tmp_path / out)
        loaded = load_weights_into(build_vit(recipe.encoder), tmp_path / out)
        assert loaded.mean == pytest.approx((0.1, 0.2, 0.3))
        assert loaded.std == pytest.approx((0.4, 0.5, 0.6))


def test_what_a_file_says_and_what_is_assumed(tmp_path):
    torch.save({"model": mae_file(table())}, tmp_path / "mae.pth")
    foreign = read_foreign(tmp_path / "mae.pth")
    names = [name for part in foreign.names.values() for name in part]
    assert sorted(names) == sorted(mae_file(table()))
    assert foreign.assumed == ("targets normalised in each patch",)
    assert foreign.guessed == {"image_size"}
    wide = {k: v.repeat_interleave(16, -1) if k == "mask_token" else v for k, v in mae_file(table()).items()}
    torch.save({"model": wide}, tmp_path / "wide.pth")
    assert (
        "16 heads of the decoder, as published for width 512" in read_foreign(tmp_path / "wide.pth").assumed
    )


CONFIGURATION = f"""
data_preprocessor = dict(mean=[25.5, 51.0, 76.5], std=[102.0, 127.5, 153.0], to_rgb=True)
model = dict(
    type='MFF',
    backbone=dict(
        type='MFFViT',
        arch=dict(embed_dims={WIDTH}, num_layers={DEPTH}, num_heads={HEADS}, feedforward_channels={4 * WIDTH}),
        img_size=({SIZE // 2}, {2 * SIZE}), patch_size={PATCH}, mask_ratio=0.5, out_indices=[0, -1]),
    neck=dict(type='MAEPretrainDecoder', decoder_num_heads={DEC_HEADS}, mlp_ratio=4.0),
    head=dict(type='MAEPretrainHead', loss=dict(type='PixelReconstructionLoss')))
"""


def test_what_mmpretrains_own_configuration_says_is_taken(tmp_path, images):
    """Heads, the image, statistics, taps and the loss: `MAEPretrainHead` has norm_pix False by default."""
    positions = sincos_2d(DEC_WIDTH, (2, 8)).roll(DEC_WIDTH // 2, dims=1)
    w = mm_file(torch.cat([torch.zeros(1, DEC_WIDTH), positions])[None], taps=2)
    torch.save({"meta": {"cfg": CONFIGURATION}, "state_dict": w}, tmp_path / "mff.pth")
    method, recipe = load_foreign_method(tmp_path / "mff.pth")
    assert (recipe.encoder.heads, recipe.decoder.heads, recipe.fusion.layers) == (HEADS, DEC_HEADS, (0, 2))
    assert recipe.encoder.image_size == (16, 64)
    assert recipe.encoder.mean == pytest.approx((0.1, 0.2, 0.3))
    assert recipe.encoder.std == pytest.approx((0.4, 0.5, 0.6))
    assert (recipe.target.norm_pix, recipe.masking.mask_ratio) == (False, 0.5)
    wide, mask = images.reshape(2, 3, 16, 64), torch.arange(16).expand(2, -1) % 2 == 1
    x = method.encoder.normalise(wide)
    theirs = published_loss(w, x, mask, mm=True, taps=(0, 2), norm_pix=False)
    torch.testing.assert_close(loss_of(method, wide, mask), theirs, rtol=1e-5, atol=1e-5)
    assert not read_foreign(tmp_path / "mff.pth").assumed


@pytest.mark.parametrize(
    "text", ["model = dict(", "model = f(" * 500, "(" * 5000, "x = 1" * 300_000, "model = 3"]
)
def test_a_configuration_that_is_none_says_nothing(tmp_path, text):
    torch.save({"meta": {"cfg": text}, "state_dict": mm_file(table(True))}, tmp_path / "mm.pth")
    with pytest.raises(LaminaError, match="how many attention heads"):
        load_encoder(tmp_path / "mm.pth")


@pytest.mark.parametrize("file", [mae_file, mm_file])
def test_decoder_heads_are_asked_for_where_nothing_tells(tmp_path, file):
    torch.save({"model": file(table(file is mm_file))}, tmp_path / "mae.pth")
    with pytest.raises(
        LaminaError, match="its decoder of width 32 has; give the number with decoder_heads=N"
    ):
        load_foreign_method(tmp_path / "mae.pth", encoder=HEADS_GIVEN)


def test_decoder_heads_of_a_vit_mae_folder_without_them(tmp_path):
    vit_mae(tmp_path / "mae")
    config = json.loads((tmp_path / "mae" / "config.json").read_text())
    del config["decoder_num_attention_heads"]
    (tmp_path / "mae" / "config.json").write_text(json.dumps(config))
    with pytest.raises(LaminaError, match="give the number with decoder_heads=N"):
        load_foreign_method(tmp_path / "mae")


def test_the_models_name_in_the_arguments_of_mae_tells_its_heads(tmp_path):
    vit = build_vit(EncoderOptions("vit_base_patch16_224", (SIZE, SIZE), PATCH, depth=1))
    torch.save(
        {
            "model": {**vit.state_dict(), **linear("decoder_embed", DEC_WIDTH, 768)},
            "args": argparse.Namespace(model="mae_vit_base_patch16", input_size=SIZE),
        },
        tmp_path / "mae.pth",
    )
    foreign = read_foreign(tmp_path / "mae.pth")
    assert foreign.options.heads == 12
    assert foreign.guessed == frozenset()


@pytest.mark.parametrize("width", [512, 480])
def test_a_whole_method_says_which_heads_were_assumed(tmp_path, width):
    """No tensor tells them: those of the published width are the published ones, of another are refused."""
    t = transformers()
    decoder = {"decoder_hidden_size": width, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 8}
    model = t.ViTMAEForPreTraining(t.ViTMAEConfig(**SIZES, **decoder))
    model.decoder.initialize_weights(16)
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["decoder_num_attention_heads"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    if width != 512:
        with pytest.raises(
            LaminaError, match=r"its decoder of width 480 has; give the number with decoder_heads=N"
        ):
            load_foreign_method(tmp_path)
        return
    with pytest.warns(UserWarning, match="assumed: .*16 heads of the decoder, as published for width 512"):
        _, recipe = load_foreign_method(tmp_path)
    assert recipe.decoder.heads == 16
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_foreign_method(tmp_path, decoder_heads=8)[1].decoder.heads == 8
