"""Weights files of other tools, made here under the names that those tools write."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from helpers.runs import shaken
from lamina.core.batch import Batch
from lamina.core.patches import patchify, sincos_2d
from lamina.core.rng import sample_keys
from lamina.encoder.options import EncoderOptions
from lamina.recipes.recipe import Recipe

WIDTH, DEPTH, HEADS, PATCH, SIZE = 48, 3, 3, 8, 32


DEC_WIDTH, DEC_DEPTH, DEC_HEADS = 32, 2, 4


GRID = (SIZE // PATCH, SIZE // PATCH)


SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "image_size": SIZE,
    "patch_size": PATCH,
}


HEADS_GIVEN = EncoderOptions(heads=HEADS)


def transformers():
    return pytest.importorskip("transformers", reason="the peer's own classes (the bench extra)")


def saved(model, folder):
    shaken(model)
    model.save_pretrained(folder)
    return model.eval()


def noise(*shape, seed=[0]):  # noqa: B006 - one stream
    seed[0] += 1
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed[0]))


def transformer(place, width, depth, names):
    """Random blocks; `names`: norm1, qkv, proj, norm2, fc1, fc2 as a tool calls them."""
    shapes = [(width,), (3 * width, width), (width, width), (width,), (4 * width, width), (width, 4 * width)]
    return {
        f"{place}.{i}.{name}.{kind}": noise(*(shape if kind == "weight" else shape[:1]))
        + (len(shape) == 1 and kind == "weight")
        for i in range(depth)
        for name, shape in zip(names, shapes, strict=True)
        for kind in ("weight", "bias")
    }


def linear(place, out, width):
    return {f"{place}.weight": noise(out, width), f"{place}.bias": noise(out)}


def norm(place, width):
    return {f"{place}.weight": 1 + noise(width), f"{place}.bias": noise(width)}


TIMM = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


MM = ("ln1", "attn.qkv", "attn.proj", "ln2", "ffn.layers.0.0", "ffn.layers.1")


def mae_file(table):
    """facebookresearch/mae, models_mae.py."""
    return {
        "cls_token": noise(1, 1, WIDTH),
        "pos_embed": noise(1, 17, WIDTH),
        "mask_token": noise(1, 1, DEC_WIDTH),
        "decoder_pos_embed": table,
        "patch_embed.proj.weight": noise(WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": noise(WIDTH),
        **transformer("blocks", WIDTH, DEPTH, TIMM),
        **norm("norm", WIDTH),
        **linear("decoder_embed", DEC_WIDTH, WIDTH),
        **transformer("decoder_blocks", DEC_WIDTH, DEC_DEPTH, TIMM),
        **norm("decoder_norm", DEC_WIDTH),
        **linear("decoder_pred", PATCH * PATCH * 3, DEC_WIDTH),
    }


def mm_file(table, taps=0, decoder_norm="ln1"):
    """mmpretrain, models/selfsup/{mae,mff}.py and models/necks/mae_neck.py."""
    fusion = {"backbone.proj_weights": noise(taps, 1, 1, 1)} if taps else {}
    for i in range(taps - 1):
        fusion |= linear(f"backbone.proj_layers.{i}", WIDTH, WIDTH)
    return {
        "backbone.cls_token": noise(1, 1, WIDTH),
        "backbone.pos_embed": noise(1, 17, WIDTH),
        "backbone.patch_embed.projection.weight": noise(WIDTH, 3, PATCH, PATCH),
        "backbone.patch_embed.projection.bias": noise(WIDTH),
        **transformer("backbone.layers", WIDTH, DEPTH, MM),
        **norm("backbone.ln1", WIDTH),
        **fusion,
        "neck.mask_token": noise(1, 1, DEC_WIDTH),
        "neck.decoder_pos_embed": table,
        **linear("neck.decoder_embed", DEC_WIDTH, WIDTH),
        **transformer("neck.decoder_blocks", DEC_WIDTH, DEC_DEPTH, MM),
        **norm(f"neck.{decoder_norm}", DEC_WIDTH),
        **linear("neck.decoder_pred", PATCH * PATCH * 3, DEC_WIDTH),
    }


def table(rows_first=False):
    """MAE's table has the column first, mmpretrain's the row (its meshgrid of w and h is by matrix indices)."""
    positions = sincos_2d(DEC_WIDTH, GRID)
    if rows_first:
        positions = positions.reshape(*GRID, -1).transpose(0, 1).reshape(16, -1)
    return torch.cat([torch.zeros(1, DEC_WIDTH), positions])[None]


def block(x, w, place, names, heads):
    """A pre-norm transformer block (Dosovitskiy et al., equations 2 and 3)."""

    def get(name):
        return w[f"{place}.{name}.weight"], w[f"{place}.{name}.bias"]

    n1, qkv, proj, n2, fc1, fc2 = names
    b, t, d = x.shape
    h = F.layer_norm(x, (d,), *get(n1), eps=1e-6)
    q, k, v = F.linear(h, *get(qkv)).reshape(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / (d // heads) ** 0.5).softmax(-1)
    x = x + F.linear((weights @ v).transpose(1, 2).reshape(b, t, d), *get(proj))
    h = F.layer_norm(x, (d,), *get(n2), eps=1e-6)
    return x + F.linear(F.gelu(F.linear(h, *get(fc1))), *get(fc2))


def embedded(w, place, x):
    """All patches with their positions, the class token and its position."""
    conv = f"{place}patch_embed.proj{'ection' if place else ''}"
    patches = F.conv2d(x, w[f"{conv}.weight"], w[f"{conv}.bias"], stride=PATCH).flatten(2).transpose(1, 2)
    return patches + w[f"{place}pos_embed"][:, 1:], w[f"{place}cls_token"] + w[f"{place}pos_embed"][:, :1]


def published_loss(w, x, mask, mm, taps=(), norm_pix=True):
    """MAE's loss (He et al., section 3) and MFF's fusion (Liu et al., equation 3), on the tool's own names."""
    place, layers, names = ("backbone.", "backbone.layers", MM) if mm else ("", "blocks", TIMM)
    final = "backbone.ln1" if mm else "norm"
    neck = "neck." if mm else ""
    patches, cls = embedded(w, place, x)
    visible = torch.stack([p[~m] for p, m in zip(patches, mask, strict=True)])
    z = torch.cat([cls.expand(len(x), -1, -1), visible], 1)
    outputs = []
    for i in range(DEPTH):
        z = block(z, w, f"{layers}.{i}", names, HEADS)
        outputs.append(z)
    if taps:
        shares = w["backbone.proj_weights"].flatten().softmax(0)
        projected = [
            F.linear(outputs[t], w[f"backbone.proj_layers.{i}.weight"], w[f"backbone.proj_layers.{i}.bias"])
            for i, t in enumerate(taps[:-1])
        ]
        z = sum(s * f for s, f in zip(shares, [*projected, outputs[-1]], strict=True))
    z = F.layer_norm(z, (WIDTH,), w[f"{final}.weight"], w[f"{final}.bias"], eps=1e-6)
    z = F.linear(z, w[f"{neck}decoder_embed.weight"], w[f"{neck}decoder_embed.bias"])
    full = w[f"{neck}mask_token"].expand(len(x), 16, -1).clone()
    for row, seen, m in zip(full, z[:, 1:], mask, strict=True):
        row[~m] = seen
    z = torch.cat([z[:, :1], full], 1) + w[f"{neck}decoder_pos_embed"]
    for i in range(DEC_DEPTH):
        z = block(z, w, f"{neck}decoder_blocks.{i}", names, DEC_HEADS)
    last = "neck.ln1" if mm else "decoder_norm"
    z = F.layer_norm(z, (DEC_WIDTH,), w[f"{last}.weight"], w[f"{last}.bias"], eps=1e-6)
    z = F.linear(z, w[f"{neck}decoder_pred.weight"], w[f"{neck}decoder_pred.bias"])[:, 1:]
    target = patchify(x, (PATCH, PATCH))
    if norm_pix:
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
    return ((z - target).square().mean(-1) * mask).sum() / mask.sum()


def loss_of(method, images, mask):
    return method(Batch(images, sample_keys(0, 0, torch.arange(2)), mask))["loss"]


def beit_file(prefix="", shared=True):
    """microsoft/SimMIM and unilm/beit, vision_transformer.py: the encoder, its mask token and its head."""
    n = (2 * GRID[0] - 1) ** 2 + 3
    w = {
        "cls_token": noise(1, 1, WIDTH),
        "mask_token": noise(1, 1, WIDTH),
        "patch_embed.proj.weight": noise(WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": noise(WIDTH),
        **norm("norm", WIDTH),
    }
    if shared:
        w |= {
            "rel_pos_bias.relative_position_bias_table": noise(n, HEADS),
            "rel_pos_bias.relative_position_index": torch.zeros(17, 17),
        }
    for i in range(DEPTH):
        w |= {
            f"blocks.{i}.{name}": noise(WIDTH)
            for name in ("attn.q_bias", "attn.v_bias", "gamma_1", "gamma_2")
        }
        if not shared:
            w |= {
                f"blocks.{i}.attn.relative_position_bias_table": noise(n, HEADS),
                f"blocks.{i}.attn.relative_position_index": torch.zeros(17, 17),
            }
    w |= transformer("blocks", WIDTH, DEPTH, TIMM)
    w = {prefix + k: v for k, v in w.items() if not k.endswith("attn.qkv.bias")}
    return w | (
        linear("lm_head", 20, WIDTH)
        if not prefix
        else {"decoder.0.weight": noise(192, WIDTH, 1, 1), "decoder.0.bias": noise(192)}
    )


def beit_recipe():
    recipe = Recipe()
    options = EncoderOptions(
        "beit_base_patch16_224",
        (32, 48),
        8,
        3,
        48,
        2,
        3,
        relative_positions="shared",
        hide="replace",
        weight_init="simmim",
    )
    return dataclasses.replace(
        recipe,
        encoder=options,
        decoder=dataclasses.replace(recipe.decoder, kind="linear"),
        fusion=dataclasses.replace(recipe.fusion, kind="none"),
    )
