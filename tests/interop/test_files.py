"""Files as other tools leave them: prefixes, several networks, shards, programs, classes beside the weights."""

import argparse
import collections
import datetime
import json
import pathlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.crossmae_files import cross_file
from helpers.foreign_files import (
    DEC_DEPTH,
    DEC_HEADS,
    DEC_WIDTH,
    DEPTH,
    HEADS,
    HEADS_GIVEN,
    PATCH,
    SIZE,
    SIZES,
    TIMM,
    WIDTH,
    beit_file,
    block,
    embedded,
    loss_of,
    mae_file,
    mm_file,
    noise,
    published_loss,
    saved,
    table,
    transformers,
)
from helpers.runs import shaken
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.patches import patchify
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign import read_foreign
from lamina.interop.foreign.methods import load_foreign_method
from lamina.interop.foreign.read_file import read_weights
from lamina.interop.inspect import inspect
from lamina.interop.load import load_encoder

PLAIN = EncoderOptions("vit_tiny_patch16_224", (SIZE, SIZE), PATCH, 3, WIDTH, DEPTH, HEADS)


@pytest.fixture
def images():
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask():
    return torch.rand(2, 16, generator=torch.Generator().manual_seed(2)).argsort(1) >= 4


def features(path):
    return load_encoder(path, encoder=HEADS_GIVEN)


def timm_file():
    return shaken(build_vit(PLAIN)).state_dict()


@pytest.mark.parametrize("prefix", ["model.", "net.backbone._orig_mod."])
@pytest.mark.parametrize(
    "content",
    [
        lambda: mae_file(table()),
        lambda: mm_file(table(True), 3),
        beit_file,
        lambda: beit_file("encoder."),
        timm_file,
    ],
    ids=["mae", "mmpretrain", "beit", "simmim", "timm"],
)
def test_a_prefix_before_all_names_changes_nothing(tmp_path, images, content, prefix):
    tensors = content()
    torch.save({"state_dict": tensors}, tmp_path / "plain.ckpt")
    wrapped = {prefix + name: tensor for name, tensor in tensors.items()} | {"loss.weight": torch.zeros(3)}
    torch.save({"state_dict": wrapped}, tmp_path / "wrapped.ckpt")
    ours, theirs = features(tmp_path / "wrapped.ckpt"), features(tmp_path / "plain.ckpt")
    assert torch.equal(ours(images).patches, theirs(images).patches)
    assert ours.kinds == theirs.kinds
    foreign = read_foreign(tmp_path / "wrapped.ckpt")
    assert sorted(name for names in foreign.names.values() for name in names) == sorted(wrapped)


@pytest.mark.parametrize("kind", ["ViTModel", "CLIPVisionModel", "Dinov2Model", "DINOv3ViTModel"])
def test_a_prefix_before_the_names_of_transformers_changes_nothing(tmp_path, images, kind):
    t = transformers()
    sizes = {**SIZES, "num_register_tokens": 4} if "v3" in kind else SIZES
    saved(getattr(t, kind)(getattr(t, kind.replace("Model", "Config"))(**sizes)), tmp_path / "plain")
    (tmp_path / "wrapped").mkdir()
    config = (tmp_path / "plain" / "config.json").read_text()
    (tmp_path / "wrapped" / "config.json").write_text(config)
    wrapped = {f"model.{name}": tensor for name, tensor in read_weights(tmp_path / "plain").items()}
    torch.save(wrapped, tmp_path / "wrapped" / "pytorch_model.bin")
    ours, theirs = load_encoder(tmp_path / "wrapped"), load_encoder(tmp_path / "plain")
    assert torch.equal(ours(images).patches, theirs(images).patches)


def test_several_networks_are_named_and_one_is_chosen_by_its_key(tmp_path, images):
    first, second = mae_file(table()), mae_file(table())
    other = {"optimizer": {"state": {0: {"exp_avg": torch.zeros(2, 2, 2, 2)}}}, "epoch": 3}
    torch.save({"student": first, "teacher": second, **other}, tmp_path / "dino.pth")
    with pytest.raises(LaminaError, match=r"several networks, under student, teacher; .* dino\.pth@teacher"):
        features(tmp_path / "dino.pth")
    torch.save({"model": second}, tmp_path / "alone.pth")
    expected = features(tmp_path / "alone.pth")(images).patches
    assert torch.equal(features(tmp_path / "dino.pth@teacher")(images).patches, expected)
    assert inspect(tmp_path / "dino.pth@teacher").what == "MAE (facebookresearch)"
    with pytest.raises(LaminaError, match="no weights under 'model_ema'; there are: student, teacher"):
        features(tmp_path / "dino.pth@model_ema")
    torch.save({"teacher": second, **other}, tmp_path / "one.pth")
    assert torch.equal(features(tmp_path / "one.pth")(images).patches, expected)
    torch.save({"model": second, "model_ema": first}, tmp_path / "ema.pth")
    assert torch.equal(features(tmp_path / "ema.pth")(images).patches, expected)
    assert "weights under 'model'; the file also has model_ema" in read_foreign(tmp_path / "ema.pth").assumed
    both = {
        f"{who}.{name}": t for who, w in (("student", first), ("teacher", second)) for name, t in w.items()
    }
    torch.save({"state_dict": both}, tmp_path / "flat.pth")
    with pytest.raises(LaminaError, match=r"names begin with student\., teacher\.; save the tensors"):
        features(tmp_path / "flat.pth")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mm", [False, True])
def test_whole_methods_in_half_precision(tmp_path, images, mask, mm, dtype):
    file = mm_file(table(True)) if mm else mae_file(table())
    half = {name: tensor.to(dtype) for name, tensor in file.items()}
    torch.save({"model": half}, tmp_path / "half.pth")
    method, _ = load_foreign_method(tmp_path / "half.pth", encoder=HEADS_GIVEN, decoder_heads=DEC_HEADS)
    w = {name: tensor.float() for name, tensor in half.items()}
    w[f"{'neck.' if mm else ''}decoder_pos_embed"] = table(mm)  # lamina's are a formula, not rounded
    theirs = published_loss(w, method.encoder.normalise(images), mask, mm=mm)
    torch.testing.assert_close(loss_of(method, images, mask), theirs, rtol=1e-5, atol=1e-5)


def test_features_of_half_precision_folders_are_those_of_their_weights(tmp_path, images):
    """Sums of what is in the file (class token and its position) are made in single precision."""
    t = transformers()
    config = t.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4)
    model = shaken(t.Dinov2WithRegistersModel(config)).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    backbone = load_encoder(tmp_path)
    with torch.no_grad():
        theirs = model.float()(backbone.encoder.normalise(images)).last_hidden_state
    torch.testing.assert_close(backbone(images).cls, theirs[:, 0], rtol=1e-5, atol=1e-5)


def test_a_folder_of_sharded_pickles(tmp_path, images):
    t = transformers()
    saved(t.ViTModel(t.ViTConfig(**SIZES)), tmp_path / "whole")
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "config.json").write_text((tmp_path / "whole" / "config.json").read_text())
    tensors = list(read_weights(tmp_path / "whole").items())
    parts = {f"pytorch_model-0000{i + 1}-of-00002.bin": dict(tensors[i::2]) for i in range(2)}
    for name, part in parts.items():
        torch.save(part, folder / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    ours, theirs = load_encoder(folder), load_encoder(tmp_path / "whole")
    assert torch.equal(ours(images).patches, theirs(images).patches)
    assert inspect(folder).what == "transformers ViT"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_a_torchscript_program_is_called_one(tmp_path):
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "vit.pt"))
    for read in (read_weights, inspect):
        with pytest.raises(LaminaError, match=r"vit\.pt is a TorchScript program, .* torch\.save") as caught:
            read(tmp_path / "vit.pt")
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_paths_times_and_default_dictionaries_beside_weights_do_not_matter(tmp_path):
    w = mae_file(table())
    meters = collections.defaultdict(list, {"loss": [1.0]})
    beside = {
        "args": argparse.Namespace(output_dir=pathlib.PurePosixPath("/x"), resume=pathlib.Path("y")),
        "meters": meters,
        "by_epoch": collections.defaultdict(int, {1: 2}),
        "when": datetime.datetime(2024, 5, 6, tzinfo=datetime.timezone.utc),  # noqa: UP017 - pickled by its class
        "day": datetime.date(2024, 5, 6),
        "took": datetime.timedelta(seconds=3),
        "counts": collections.Counter("aab"),
    }
    torch.save({"model": w, **beside}, tmp_path / "mae.pth")
    assert read_weights(tmp_path / "mae.pth").keys() == w.keys()
    torch.save({"model": collections.defaultdict(torch.Tensor, w)}, tmp_path / "default.pth")
    assert read_weights(tmp_path / "default.pth").keys() == w.keys()


class Trainer:
    """What no list of ours has."""


def test_another_class_beside_weights_is_named(tmp_path):
    torch.save({"model": mae_file(table()), "trainer": Trainer()}, tmp_path / "mae.pth")
    with pytest.raises(LaminaError, match=r"wants to run code when it is read \(\S*test_files\.Trainer\)"):
        read_weights(tmp_path / "mae.pth")


# --- CrossMAE -------------------------------------------------------------------------------------------


def taps_of(w, tokens):
    """The embedded input and the outputs of all blocks."""
    taps = [tokens]
    for i in range(DEPTH):
        taps.append(block(taps[-1], w, f"blocks.{i}", TIMM, HEADS))
    return taps


def cross_loss(w, x, mask):
    """Fu et al., section 3 and equation 2: each hidden patch is read out of mixes of the encoder's layers."""
    patches, cls = embedded(w, "", x)
    visible = torch.stack([p[~m] for p, m in zip(patches, mask, strict=True)])
    taps = torch.stack(taps_of(w, torch.cat([cls.expand(len(x), -1, -1), visible], 1)), -1)

    def get(name):
        return w[f"{name}.weight"], w[f"{name}.bias"]

    hidden = torch.stack([w["decoder_pos_embed"][0, 1:][m] for m in mask])
    z = w["mask_token"] + hidden
    for i in range(DEC_DEPTH):
        p = f"decoder_blocks.{i}"
        memory = F.layer_norm(taps @ w["wfm.linear.weight"][i], (WIDTH,), *get(f"dec_norms.{i}"), eps=1e-6)
        h = F.layer_norm(z, (DEC_WIDTH,), *get(f"{p}.norm1"), eps=1e-6)
        b, n, d = h.shape
        q = F.linear(h, *get(f"{p}.cross_attn.q")).reshape(b, n, DEC_HEADS, -1).transpose(1, 2)
        k, v = (
            F.linear(memory, *get(f"{p}.cross_attn.kv"))
            .reshape(b, -1, 2, DEC_HEADS, d // DEC_HEADS)
            .unbind(2)
        )
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        a = (q @ k.transpose(-2, -1) / (d // DEC_HEADS) ** 0.5).softmax(-1) @ v
        z = z + F.linear(a.transpose(1, 2).flatten(2), *get(f"{p}.cross_attn.proj"))
        h = F.layer_norm(z, (DEC_WIDTH,), *get(f"{p}.norm2"), eps=1e-6)
        z = z + F.linear(F.gelu(F.linear(h, *get(f"{p}.mlp.fc1"))), *get(f"{p}.mlp.fc2"))
    z = F.linear(F.layer_norm(z, (DEC_WIDTH,), *get("decoder_norm"), eps=1e-6), *get("decoder_pred"))
    target = torch.stack([t[m] for t, m in zip(patchify(x, (PATCH, PATCH)), mask, strict=True)])
    target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    return (z - target).square().mean()


def test_a_crossmae_checkpoint_is_an_encoder_and_a_whole_method(tmp_path, images, mask):
    w = cross_file()
    args = argparse.Namespace(norm_pix_loss=True, mask_ratio=0.75, kept_mask_ratio=0.25)
    torch.save({"model": w, "args": args}, tmp_path / "cross.pth")
    backbone = load_encoder(tmp_path / "cross.pth", encoder=HEADS_GIVEN)
    patches, cls = embedded(w, "", backbone.encoder.normalise(images))
    z = taps_of(w, torch.cat([cls.expand(2, -1, -1), patches], 1))[-1]
    theirs = F.layer_norm(z, (WIDTH,), eps=1e-6)
    torch.testing.assert_close(backbone(images).patches, theirs[:, 1:], rtol=1e-5, atol=1e-5)
    assert backbone.kinds == ("last",)
    with pytest.raises(LaminaError, match="give the number with decoder_heads=N"):
        load_foreign_method(tmp_path / "cross.pth", encoder=HEADS_GIVEN)
    method, recipe = load_foreign_method(tmp_path / "cross.pth", encoder=HEADS_GIVEN, decoder_heads=DEC_HEADS)
    assert (recipe.decoder.kind, recipe.decoder.predict_share, recipe.fusion.kind) == ("cross", 0.25, "mix")
    ours = method(Batch(images, sample_keys(0, 0, torch.arange(2)), mask))["loss"]
    theirs = cross_loss(w, method.encoder.normalise(images), mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert {group.part for group in inspect(tmp_path / "cross.pth").used} == {"encoder", "fusion", "decoder"}


def test_a_crossmae_that_mixes_some_layers_is_an_encoder_alone(tmp_path):
    w = cross_file() | {"wfm.linear.weight": noise(DEC_DEPTH, DEPTH)}
    torch.save({"model": w}, tmp_path / "cross.pth")
    assert load_encoder(tmp_path / "cross.pth", encoder=HEADS_GIVEN).encoder.depth == DEPTH
    with pytest.raises(LaminaError, match="mixes some of its layers"):
        load_foreign_method(tmp_path / "cross.pth", encoder=HEADS_GIVEN, decoder_heads=DEC_HEADS)
