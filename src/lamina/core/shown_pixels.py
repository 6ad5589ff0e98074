"""How images of any number of channels are shown: in grey or in colour, in bytes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Floats in [0, 1] as 8-bit numbers, rounded; what lies outside is clamped."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8)


def displayable(images: Shaped[Tensor, "B C H W"]) -> Shaped[Tensor, "B c H W"]:
    """One channel (shown grey) or the first three (shown as red, green, blue)."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1]


def channels_shown(channels: int) -> str:
    """Which channels `displayable` takes, for captions; "" where these are all."""
    if channels > 3:
        return f"first 3 of {channels} channels"
    return "first of 2 channels" if channels == 2 else ""
