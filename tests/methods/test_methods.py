"""Every method with every fusion: gradients everywhere; SimMIM against its own formula; crossings refused."""

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

import lamina
from lamina.cmae.cmae import CMAE
from lamina.cmae.options import CMAEOptions
from lamina.core.batch import Batch
from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.mff import MultiLevelFusion
from lamina.masking.random import RandomMasking
from lamina.methods import beit, crossmae, eva, mae, maskfeat, milan, pixio, pixmim, simmim
from lamina.methods.eva import eva_tokens
from lamina.mim import MIM
from lamina.recipes.build import build_method, resolve
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions
from lamina.targets.teacher import Teacher
from lamina.targets.token_ids import TokenIds

WIDTH, DEPTH = 48, 6
ENCODERS = {
    "class token": "vit_tiny_patch16_224",
    "registers, no class token": "vit_medium_patch16_reg4_gap_256",
    "eva": "eva02_tiny_patch14_224",
    "mixed rope": "vit_small_patch16_rope_mixed_224",
}
FUSIONS = {
    "none": lambda: None,
    **{
        f"{projection} {pooling}": lambda projection=projection, pooling=pooling: MultiLevelFusion(
            WIDTH, DEPTH, projection=projection, pooling=pooling
        )
        for projection in ("none", "linear", "mlp")
        for pooling in ("average", "attention")
    },
}
SMALL_DECODER = {"decoder_width": 32, "decoder_depth": 2, "decoder_heads": 2}


class Parity(torch.nn.Module):
    """A tokenizer of two words: whether the mean of 8 x 8 px is above a half."""

    vocabulary, stride = 2, 8

    def ids(self, pixels):
        b, c, h, w = pixels.shape
        return (pixels.reshape(b, c, h // 8, 8, w // 8, 8).mean((1, 3, 5)) > 0.5).long()


def teacher(scores=False):
    torch.manual_seed(1)
    options = EncoderOptions(image_size=(32, 48), patch_size=8, width=24, depth=2, heads=2)
    return Teacher(build_vit(options), (0.5,) * 3, (0.25,) * 3, (4, 6), scores=scores)


METHODS = {
    "mae": lambda vit, fusion: mae(vit, fusion, **SMALL_DECODER),
    "pixmim": lambda vit, fusion: pixmim(vit, fusion, **SMALL_DECODER),
    "simmim": lambda vit, fusion: simmim(vit, fusion, unit_px=16),
    "crossmae": lambda vit, fusion: crossmae(vit, fusion, **SMALL_DECODER),
    "maskfeat": lambda vit, fusion: maskfeat(vit, fusion, min_block=2),
    "beit": lambda vit, fusion: beit(vit, TokenIds(Parity(), (8, 8)), fusion, min_block=2),
    "eva": lambda vit, fusion: eva(vit, teacher(), fusion, **SMALL_DECODER),
    "eva tokens": lambda vit, fusion: eva_tokens(vit, teacher(), fusion, min_block=2),
    "milan": lambda vit, fusion: milan(vit, teacher(scores=True), fusion, **SMALL_DECODER),
    "pixio": lambda vit, fusion: pixio(vit, fusion, unit=2, class_tokens=1, **SMALL_DECODER),
    "residual decay": lambda vit, fusion: mae(vit, fusion, residual_decay=0.6, **SMALL_DECODER),
    "cmae": lambda vit, fusion: CMAE(mae(vit, fusion, **SMALL_DECODER), CMAEOptions(hidden=16, out=8), 32, 2),
    "deit": lambda vit, fusion: Supervised(
        Encoder(vit), fusion or LastLayer(DEPTH), 3, SupervisedOptions(mixup=0.0, cutmix=0.0)
    ),
}


def vit_of(name: str, channels: int = 3):
    torch.manual_seed(0)
    return build_vit(
        EncoderOptions(
            name=name,
            image_size=(32, 48),
            patch_size=8,
            in_chans=channels,
            width=WIDTH,
            depth=DEPTH,
            heads=3,
        )
    )


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_trainable_parameter_gets_a_gradient(encoder, method, fusion):
    vit = vit_of(ENCODERS[encoder])
    task = METHODS[method](vit, FUSIONS[fusion]())
    for parameter in task.parameters():  # a zero (a mask token, a LayerScale) may hide the path behind it
        parameter.data += 0.01 * torch.randn_like(parameter)
    images, view = torch.rand(2, 2, 3, 32, 48)
    keys = sample_keys(0, 0, torch.arange(2))
    loss = task(Batch(images, keys, labels=torch.tensor([0, 2]), view=view))["loss"]
    assert torch.isfinite(loss)
    loss.backward()
    without = [
        n for n, p in task.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    # Softmax over keys does not change when the same vector is added to all of them: no gradient there.
    assert [n for n in without if "pool.k.bias" not in n] == []


@pytest.mark.parametrize("method", METHODS)
def test_no_draw_is_left_to_a_compiler(method):
    """torch.compile makes index arithmetic of products of arange, which overflows: such products may not be
    in what it is given, but in the operator that it calls as it stands."""
    vit = build_vit(EncoderOptions(image_size=(32, 48), patch_size=8, width=WIDTH, depth=1, heads=3))
    mixing = method == "deit"
    task = Supervised(Encoder(vit), LastLayer(1), 3) if mixing else METHODS[method](vit, None)
    images, view = torch.rand(2, 2, 3, 32, 48)
    keys, labels = sample_keys(0, 0, torch.arange(2)), torch.tensor([0, 2])
    task(Batch(images, keys, None, labels, view=view))  # the first images' range is looked at, untraced
    traced = make_fx(lambda *given: task(Batch(*given, view=view))["loss"])(images, keys, None, labels)
    calls = [node for node in traced.graph.nodes if node.op == "call_function"]
    arithmetic = [
        node for node in calls if node.target in (torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor)
    ]
    assert [n for n in arithmetic if any(isinstance(a, int) and abs(a) >= 2**31 for a in n.args)] == []
    assert torch.ops.lamina.bits.default in {node.target for node in calls}


def test_the_readme_example():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=6)
    fusion = lamina.MultiLevelFusion(width=192, depth=6)
    loss = lamina.mae(vit, fusion=fusion, **SMALL_DECODER)(torch.rand(2, 3, 64, 64))["loss"]
    assert loss.ndim == 0


def test_simmim_is_convolution_pixel_shuffle_and_masked_l1():
    """SimMIM's own code: a 1x1 convolution to patch^2 * 3 maps, PixelShuffle, L1 over hidden pixels / channels."""
    task = simmim(
        vit_of("vit_tiny_patch16_224"), unit_px=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
    ).double()
    images = torch.rand(3, 3, 32, 48, dtype=torch.float64)
    keys = sample_keys(0, 0, torch.arange(3))
    mask = task.masking(keys, (4, 6))
    x = task.encoder.normalise(images)
    tokens = task.encoder.norm(task.encoder(images, [DEPTH - 1], mask)[0])[:, 1:]
    maps = tokens.transpose(1, 2).reshape(3, WIDTH, 4, 6)
    # PixelShuffle reads channels as (colour, row, column); our head writes (row, column, colour).
    weight = task.decoder.head.weight.reshape(8, 8, 3, WIDTH).permute(2, 0, 1, 3).reshape(-1, WIDTH, 1, 1)
    bias = task.decoder.head.bias.reshape(8, 8, 3).permute(2, 0, 1).flatten()
    reconstruction = F.pixel_shuffle(F.conv2d(maps, weight, bias), 8)
    hidden = mask.reshape(3, 1, 4, 6).repeat_interleave(8, 2).repeat_interleave(8, 3).double()
    expected = (F.l1_loss(x, reconstruction, reduction="none") * hidden).sum() / (hidden.sum() + 1e-5) / 3
    # The 1e-5 in SimMIM's denominator is 1e-5 of thousands of pixels.
    assert float(task(Batch(images, keys))["loss"].detach()) == pytest.approx(
        float(expected.detach()), rel=1e-8
    )


def test_a_float_image_and_its_stored_form_give_the_same_loss():
    task = mae(vit_of("vit_tiny_patch16_224"), **SMALL_DECODER)
    stored = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    keys = sample_keys(0, 0, torch.arange(2))
    losses = [float(task(Batch(x, keys))["loss"].detach()) for x in (stored, stored.float() / 255)]
    assert losses[0] == losses[1]


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    task = mae(vit_of("vit_tiny_patch16_224"), **SMALL_DECODER).double()
    batch = Batch(torch.rand(4, 3, 32, 48, dtype=torch.float64), sample_keys(0, 0, torch.arange(4)))
    parts = [task(part)["loss"] for part in batch.split(2)]
    torch.testing.assert_close(task(batch)["loss"], sum(parts) / 2, rtol=1e-12, atol=0)


def test_channels_other_than_three():
    for channels in (1, 4):
        task = mae(vit_of("vit_tiny_patch16_224", channels), **SMALL_DECODER)
        assert torch.isfinite(task(torch.rand(2, channels, 32, 48))["loss"])


def test_a_recipe_builds_what_the_constructor_builds():
    """Two ways to each method: copied weights give the same loss."""
    decoder = {"decoder_width": 128, "decoder_depth": 4, "decoder_heads": 4}
    torch.manual_seed(1)
    network = build_vit(EncoderOptions(image_size=(64, 64), patch_size=8, width=24, depth=2, heads=2))
    taught = partial(Teacher, network, (0.5,) * 3, (0.25,) * 3, (8, 8))
    for name, constructor, sizes, target in (
        ("maskfeat", maskfeat, {}, None),
        ("mae", mae, decoder, None),
        ("pixmim", pixmim, decoder, None),
        ("simmim", simmim, {"unit_px": 16}, None),
        ("crossmae", crossmae, decoder, None),
        ("pixio", pixio, {**decoder, "unit": 2}, None),
        ("residual-decay", mae, {**decoder, "residual_decay": 0.6}, None),
        ("beit", beit, {}, TokenIds(Parity(), (8, 8))),
        ("eva", eva, decoder, taught()),
        ("eva-tokens", eva_tokens, {}, taught()),
        ("milan", milan, decoder, taught(scores=True)),
    ):
        fusion = "mix" if constructor is crossmae else "none"
        recipe = resolve(merge(lamina.recipe(f"{name}-small"), {"fusion": {"kind": fusion}}))
        given = {} if target is None else {"target": target}
        built, made = build_method(recipe, target), constructor(build_vit(recipe.encoder), **given, **sizes)
        made.load_state_dict(built.state_dict())
        batch = Batch(torch.rand(2, 3, 64, 64), sample_keys(0, 0, torch.arange(2)))
        assert float(made(batch)["loss"].detach()) == float(built(batch)["loss"].detach()), name


def test_images_and_masks_of_another_size_are_refused():
    vit = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=WIDTH,
        depth=2,
        num_heads=3,
        dynamic_img_size=True,
    )
    task = mae(vit, **SMALL_DECODER)
    with pytest.raises(LaminaError, match="built for 32 x 32 px"):
        task(torch.rand(1, 3, 16, 32))
    mask = torch.arange(16)[None] < 14
    with pytest.raises(LaminaError, match="must leave 4 patches"):
        task(Batch(torch.rand(1, 3, 32, 32), mask=mask))


def test_parts_that_do_not_fit_are_refused():
    replacing = simmim(vit_of("vit_tiny_patch16_224"), unit_px=16)
    dropping = mae(vit_of("vit_tiny_patch16_224"), **SMALL_DECODER)
    with pytest.raises(LaminaError, match="LinearDecoder reads all"):
        MIM(
            RandomMasking(),
            dropping.encoder,
            LastLayer(DEPTH),
            replacing.decoder,
            dropping.target,
            dropping.loss,
        )
    with pytest.raises(LaminaError, match="build the fusion for this depth"):
        mae(vit_of("vit_tiny_patch16_224"), MultiLevelFusion(WIDTH, 12), **SMALL_DECODER)
