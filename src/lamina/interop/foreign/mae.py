"""Checkpoints of facebookresearch/mae: an encoder under timm's names, and the decoder beside it."""

from __future__ import annotations

import re

from lamina.encoder import EncoderOptions
from lamina.interop.foreign.described import (
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
_PUBLISHED = {"base": (768, 12), "large": (1024, 16), "huge": (1280, 16)}
"""Width and heads of the encoders that the repository's names stand for; their decoders are all alike."""


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """MAE's own file; its `args`, where there are any, name the model and say how the loss was computed."""
    parts, names = divide(tensors, _RULES)
    guesses = Guesses()
    encoder, decoder, args = parts["encoder"], parts["decoder"], clues.args
    tokens = need(encoder, "pos_embed").shape[1] - 1
    shape = sizes(encoder, tokens, guesses, args.get("input_size"))
    named = re.match(r"mae_vit_(base|large|huge)_patch", str(args.get("model")))
    width, heads = _PUBLISHED[named[1]] if named is not None else (None, None)
    own_heads = heads if shape["width"] == width else None
    norm_pix, ratio = args.get("norm_pix_loss"), args.get("mask_ratio")
    if norm_pix is None:
        guesses.words.append("targets normalised in each patch")
    return Foreign(
        "MAE (facebookresearch)",
        encoder,
        names,
        EncoderOptions(**plain_vit(shape["width"], own_heads, guesses), **shape, **clues.statistics()),
        decoder=decoder,
        eps=1e-6,
        said={
            "decoder": {"heads": published_heads(decoder, guesses) if decoder else None},
            "target": {"norm_pix": True if norm_pix is None else bool(norm_pix)},
            "masking": {"mask_ratio": float(ratio)} if isinstance(ratio, int | float) else {},
        },
        **guesses.said(),
    )


FORMAT = Format("MAE (facebookresearch)", (r"patch_embed\.proj\.weight", r"decoder_embed\.weight"), convert)
