"""Checkpoints of facebookresearch/mae: an encoder under timm's names, and the decoder beside it."""

from __future__ import annotations

import re
from typing import Any

from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Parts, Tensors, divide
from lamina.interop.foreign.mae_decoder import published_heads

_RULES = [
    (r"mask_token", "decoder.mask_token"),
    (r"decoder_pos_embed", "decoder.positions"),
    (r"decoder_embed\.(.*)", r"decoder.embed.\1"),
    (r"decoder_blocks\.(.*)", r"decoder.blocks.\1"),
    (r"decoder_norm\.(.*)", r"decoder.norm.\1"),
    (r"decoder_pred\.(.*)", r"decoder.head.\1"),
    (r"((?:cls_token|pos_embed|patch_embed|blocks|norm)(?:\..*)?)", r"encoder.\1"),
]
_PUBLISHED = {"small": (384, 6), "base": (768, 12), "large": (1024, 16), "huge": (1280, 16)}
"""Width and heads of the encoders that the names in MAE's and CrossMAE's repositories stand for."""


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """MAE's own file; its `args`, where there are any, have the name of the model and the options of the
    loss."""
    parts = divide(tensors, _RULES)
    shape = parts.sizes(parts.n_patches(), clues.args.get("input_size"))
    named = named_encoder(shape["width"], clues, parts)
    heads = {"heads": published_heads(parts) if parts.decoder else None}
    fields = {**loss_fields(clues, parts), "decoder": heads}
    options = EncoderOptions(**named, **shape, **clues.statistics())
    return parts.foreign("MAE (facebookresearch)", options, 1e-6, recipe_fields=fields)


def named_encoder(width: int, clues: Clues, parts: Parts) -> dict[str, Any]:
    """Fields `name` and `heads`: of the model that the arguments of the training name, if it has that
    width."""
    named = re.match(r"mae_vit_(small|base|large|huge)_patch", str(clues.args.get("model")))
    own, heads = _PUBLISHED[named[1]] if named is not None else (None, None)
    return parts.plain_vit(width, heads if width == own else None)


def loss_fields(clues: Clues, parts: Parts) -> dict[str, dict[str, Any]]:
    """Fields of a recipe by group: the target and the mask ratio, from the arguments of the training."""
    norm_pix, ratio = clues.args.get("norm_pix_loss"), clues.args.get("mask_ratio")
    if norm_pix is None:
        parts.assumed.append("targets normalised in each patch")
    return {
        "target": {"norm_pix": True if norm_pix is None else bool(norm_pix)},
        "masking": {"mask_ratio": float(ratio)} if isinstance(ratio, int | float) else {},
    }


FORMAT = Format("MAE (facebookresearch)", (r"patch_embed\.proj\.weight", r"decoder_embed\.weight"), convert)
