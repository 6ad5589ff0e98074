"""Checkpoints of CrossMAE: an encoder under MAE's names, a decoder that reads mixes of its layers."""

from __future__ import annotations

import torch

from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors, divide, need
from lamina.interop.foreign.mae import loss_fields, named_encoder

_RULES = [
    (r"mask_token", "decoder.mask_token"),
    (r"decoder_pos_embed", "decoder.positions"),
    (r"decoder_blocks\.(\d+)\.cross_attn\.(.*)", r"decoder.blocks.\1.\2"),
    (r"decoder_blocks\.(.*)", r"decoder.blocks.\1"),
    (r"decoder_norm\.(.*)", r"decoder.norm.\1"),
    (r"decoder_pred\.(.*)", r"decoder.head.\1"),
    (r"wfm\.linear\.weight", "fusion.weight"),
    (r"dec_norms\.(.*)", r"fusion.norms.\1"),
    (r"((?:cls_token|pos_embed|patch_embed|blocks|norm)(?:\..*)?)", r"encoder.\1"),
]
_DECODER_HEADS = {256: 8, 512: 16}
"""Attention heads by width, of the decoders of that repository."""


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """CrossMAE's own file. It trains no final norm of the encoder (each mix has one of its own): where the
    file has none, the encoder ends with one that scales and shifts nothing."""
    parts = divide(tensors, _RULES)
    shape = parts.sizes(parts.n_patches(), clues.args.get("input_size"))
    named = named_encoder(shape["width"], clues, parts)
    if "norm.weight" not in parts.encoder:
        width = shape["width"]
        parts.encoder |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
        parts.assumed.append("a final norm that scales nothing: CrossMAE trains none")
    width = int(need(parts.decoder, "mask_token").shape[-1])
    heads = _DECODER_HEADS.get(width)
    if heads is not None:
        parts.assumed.append(f"{heads} heads of the decoder, as published for width {width}")
    share = clues.args.get("kept_mask_ratio")
    predicted = {"predict_share": float(share)} if isinstance(share, float) else {}
    fields = {
        **loss_fields(clues, parts),
        "decoder": {"kind": "cross", "heads": heads, **predicted},
        "fusion": {"kind": "mix" if parts.fusion else "none"},
    }
    options = EncoderOptions(**named, **shape, **clues.statistics())
    return parts.foreign("CrossMAE", options, 1e-6, recipe_fields=fields)


FORMAT = Format(
    "CrossMAE",
    (r"patch_embed\.proj\.weight", r"decoder_blocks\.0\.cross_attn\.kv\.weight"),
    convert,
)
