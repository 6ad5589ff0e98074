"""Decoders of MAE as others write them: the fixed positions recognised, channels put into lamina's order."""

from __future__ import annotations

import torch

from lamina.core.errors import LaminaError
from lamina.core.patches import sincos_2d
from lamina.interop.foreign.format import Parts, Tensors, need

_AXES = {  # which axis of a tensor the decoder's channels are
    "embed.weight": 0,
    "embed.bias": 0,
    "mask_token": -1,
    "norm.weight": 0,
    "norm.bias": 0,
    "norm1.weight": 0,
    "norm1.bias": 0,
    "norm2.weight": 0,
    "norm2.bias": 0,
    "attn.qkv.weight": 1,
    "q.weight": 1,
    "proj.weight": 0,
    "proj.bias": 0,
    "mlp.fc1.weight": 1,
    "mlp.fc2.weight": 0,
    "mlp.fc2.bias": 0,
    "head.weight": 1,
}
_TOLERANCE = 2**-8  # of tables kept in half precision: bfloat16 rounds numbers near 1 by up to half of that

PUBLISHED_WIDTH, PUBLISHED_HEADS = 512, 16
"""Channels and attention heads of the decoder of every MAE that was published (He et al., section 4)."""


def published_heads(parts: Parts) -> int | None:
    """Attention heads of a decoder that is as wide as the published ones, noted as a guess; None for another
    width, of which nothing is known."""
    token = parts.decoder.get("mask_token")
    if token is None or token.shape[-1] != PUBLISHED_WIDTH:
        return None
    parts.assumed.append(f"{PUBLISHED_HEADS} heads of the decoder, as published for width {PUBLISHED_WIDTH}")
    return PUBLISHED_HEADS


def with_our_positions(decoder: Tensors, grid: tuple[int, int]) -> Tensors:
    """The tensors of a `MAEDecoder` that computes what this decoder does, without its table of positions.

    MAE's table has the column in its first half of channels and the row in the second; mmpretrain's the other
    way round. A decoder is the same function under any order of its channels, so the halves of all its
    matrices are exchanged instead. Without a table the positions are taken to be MAE's.

    Raises:
        LaminaError: for positions that are no such table; lamina's decoders have no other.
    """
    found = {name: tensor for name, tensor in decoder.items() if name != "positions"}
    if "positions" not in decoder:
        return found
    own = sincos_2d(int(need(decoder, "mask_token").shape[-1]), grid)
    table = decoder["positions"].float().flatten(0, -2)
    prefix = len(table) - len(own)
    if prefix < 0 or table.shape[1] != own.shape[1] or bool(table[:prefix].abs().gt(_TOLERANCE).any()):
        raise LaminaError(
            "lamina's decoders have no place for its decoder's positions; load the encoder alone"
        )
    half = own.shape[1] // 2
    if torch.allclose(table[prefix:], own, atol=_TOLERANCE):
        return found
    if not torch.allclose(table[prefix:], own.roll(half, dims=1), atol=_TOLERANCE):
        raise LaminaError("its decoder has learned positions, lamina's are fixed; load the encoder alone")
    return {name: _exchanged(name, tensor, half) for name, tensor in found.items()}


def _exchanged(name: str, tensor: torch.Tensor, half: int) -> torch.Tensor:
    axis = next((axis for end, axis in _AXES.items() if name == end or name.endswith("." + end)), None)
    return tensor if axis is None else tensor.roll(half, dims=axis)
