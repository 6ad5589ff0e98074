"""Checkpoints of CrossMAE: an encoder under MAE's names, a decoder that reads mixes of its layers."""

from __future__ import annotations

import torch

from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Guesses, Tensors, divide, need, sizes
from lamina.interop.foreign.mae import encoder_said, loss_said

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
    parts, names = divide(tensors, _RULES)
    guesses = Guesses()
    encoder, decoder = parts["encoder"], parts["decoder"]
    shape = sizes(encoder, need(encoder, "pos_embed").shape[1] - 1, guesses, clues.args.get("input_size"))
    named = encoder_said(shape["width"], clues, guesses)
    if "norm.weight" not in encoder:
        encoder |= {"norm.weight": torch.ones(shape["width"]), "norm.bias": torch.zeros(shape["width"])}
        guesses.words.append("a final norm that scales nothing: CrossMAE trains none")
    width = int(need(decoder, "mask_token").shape[-1])
    heads = _DECODER_HEADS.get(width)
    if heads is not None:
        guesses.words.append(f"{heads} heads of the decoder, as published for width {width}")
    share = clues.args.get("kept_mask_ratio")
    predicted = {"predict_share": float(share)} if isinstance(share, float) else {}
    return Foreign(
        "CrossMAE",
        encoder,
        names,
        EncoderOptions(**named, **shape, **clues.statistics()),
        fusion=parts["fusion"],
        decoder=decoder,
        eps=1e-6,
        said={
            **loss_said(clues, guesses),
            "decoder": {"kind": "cross", "heads": heads, **predicted},
            "fusion": {"kind": "mix" if parts["fusion"] else "none"},
        },
        **guesses.said(),
    )


FORMAT = Format(
    "CrossMAE",
    (r"patch_embed\.proj\.weight", r"decoder_blocks\.0\.cross_attn\.kv\.weight"),
    convert,
)
