"""Checkpoints of facebookresearch/mae: an encoder under timm's names, and the decoder beside it."""

from __future__ import annotations

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

_RULES = [
    (r"mask_token", "decoder.mask_token"),
    (r"decoder_pos_embed", "decoder.positions"),
    (r"decoder_embed\.(.*)", r"decoder.embed.\1"),
    (r"decoder_blocks\.(.*)", r"decoder.blocks.\1"),
    (r"decoder_norm\.(.*)", r"decoder.norm.\1"),
    (r"decoder_pred\.(.*)", r"decoder.head.\1"),
    (r"((?:cls_token|pos_embed|patch_embed|blocks|norm)(?:\..*)?)", r"encoder.\1"),
]
_HEADS = 16  # of every decoder in that repository


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """MAE's own file; its `args`, where there are any, say whether patches were normalised."""
    parts, names = divide(tensors, _RULES)
    guesses = Guesses()
    shape = sizes(parts["encoder"], need(parts["encoder"], "pos_embed").shape[1] - 1, guesses)
    named = plain_vit(shape["width"], None, guesses)
    norm_pix, ratio = clues.args.get("norm_pix_loss"), clues.args.get("mask_ratio")
    if norm_pix is None:
        guesses.words.append("targets normalised in each patch")
    if "embed.weight" in parts["decoder"]:
        guesses.words.append(f"{_HEADS} heads of the decoder")
    return Foreign(
        "MAE (facebookresearch)",
        parts["encoder"],
        names,
        EncoderOptions(**named, **shape, **clues.statistics()),
        decoder=parts["decoder"],
        eps=1e-6,
        said={
            "decoder": {"heads": _HEADS},
            "target": {"norm_pix": True if norm_pix is None else bool(norm_pix)},
            "masking": {} if ratio is None else {"mask_ratio": float(ratio)},
        },
        **guesses.said(),
    )


FORMAT = Format("MAE (facebookresearch)", (r"patch_embed\.proj\.weight", r"decoder_embed\.weight"), convert)
