"""Checkpoints of facebookresearch/mae: an encoder under timm's names, and the decoder beside it."""

from __future__ import annotations

import re
from typing import Any

from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import (
    Clues,
    Foreign,
    Format,
    Guesses,
    Tensors,
    divide,
    need,
    plain_vit,
    sizes,
)
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
    """MAE's own file; its `args`, where there are any, name the model and say how the loss was computed."""
    parts, names = divide(tensors, _RULES)
    guesses = Guesses()
    encoder, decoder = parts["encoder"], parts["decoder"]
    tokens = need(encoder, "pos_embed").shape[1] - 1
    shape = sizes(encoder, tokens, guesses, clues.args.get("input_size"))
    return Foreign(
        "MAE (facebookresearch)",
        encoder,
        names,
        EncoderOptions(**encoder_said(shape["width"], clues, guesses), **shape, **clues.statistics()),
        decoder=decoder,
        eps=1e-6,
        said={
            **loss_said(clues, guesses),
            "decoder": {"heads": published_heads(decoder, guesses) if decoder else None},
        },
        **guesses.said(),
    )


def encoder_said(width: int, clues: Clues, guesses: Guesses) -> dict[str, Any]:
    """Fields `name` and `heads`: of the model that the training's arguments name, if that is so wide."""
    named = re.match(r"mae_vit_(small|base|large|huge)_patch", str(clues.args.get("model")))
    own, heads = _PUBLISHED[named[1]] if named is not None else (None, None)
    return plain_vit(width, heads if width == own else None, guesses)


def loss_said(clues: Clues, guesses: Guesses) -> dict[str, dict[str, Any]]:
    """Fields of a recipe that the arguments of the training say."""
    norm_pix, ratio = clues.args.get("norm_pix_loss"), clues.args.get("mask_ratio")
    if norm_pix is None:
        guesses.words.append("targets normalised in each patch")
    return {
        "target": {"norm_pix": True if norm_pix is None else bool(norm_pix)},
        "masking": {"mask_ratio": float(ratio)} if isinstance(ratio, int | float) else {},
    }


FORMAT = Format("MAE (facebookresearch)", (r"patch_embed\.proj\.weight", r"decoder_embed\.weight"), convert)
