"""A shift of the hue of 8-bit images: torchvision's `adjust_hue` to the bit, in a fraction of its time.

The arithmetic of each pixel is that of torchvision, operation by operation, in float32. What takes the time
there is left out: choosing among colours by an index of 64 bits, remainders, and new memory for each step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

_ONE = np.float32(1)
_FROM_8_BITS, _TO_8_BITS = np.float32(1 / 255), np.float32(256 - 1e-3)


def shift_hue(image: Shaped[Tensor, "C H W"], amount: float) -> Shaped[Tensor, "C H W"]:
    """The image with its hue shifted by a share of a turn, -0.5 to 0.5; one of one channel as it is."""
    if image.dtype != torch.uint8 or image.shape[0] != 3 or not -0.5 <= amount <= 0.5:
        found: Tensor = F.adjust_hue(image, amount)
        return found
    return torch.from_numpy(_shifted(image.numpy(), np.float32(amount)))


def _shifted(
    image: UInt8[NDArray[np.uint8], "3 H W"], amount: np.float32
) -> UInt8[NDArray[np.uint8], "3 H W"]:
    hue, saturation, value = _hue_saturation_value(image.astype(np.float32) * _FROM_8_BITS)
    hue += amount
    hue -= hue >= 1
    hue += hue < 0
    return _red_green_blue(hue, saturation, value)


def _hue_saturation_value(rgb: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    red, green, blue = rgb
    most = np.maximum(np.maximum(red, green), blue)
    spread = most - np.minimum(np.minimum(red, green), blue)
    saturation = spread / (most + (most == 0))
    r, g, b = (most - rgb) / (spread + (spread == 0))
    is_red = most == red
    is_green = (most == green) & ~is_red
    hue = (b - g) * is_red
    hue += ((r + np.float32(2)) - b) * is_green
    hue += ((g + np.float32(4)) - r) * ~(is_red | is_green)
    hue *= np.float32(1 / 6)
    hue += _ONE
    hue -= hue >= 1
    return hue, saturation, most


def _red_green_blue(
    hue: NDArray[Any], saturation: NDArray[Any], value: NDArray[Any]
) -> UInt8[NDArray[np.uint8], "3 H W"]:
    hue *= np.float32(6)
    sector = np.floor(hue)
    hue -= sector
    hue *= saturation
    pale = _ONE - saturation
    falling = _as_bytes((_ONE - hue) * value)
    hue += pale
    rising = _as_bytes(np.minimum(hue * value, _ONE))
    low, high = _as_bytes(pale * value), _as_bytes(value)
    sector *= sector != 6
    in_sector = [_all_bits(sector == k) for k in range(6)]
    found = np.empty((3, *hue.shape), np.uint8)
    for channel in range(3):  # each is highest in two sectors of its own
        top = in_sector[2 * channel - 1] | in_sector[2 * channel]
        fall, rise = in_sector[(2 * channel + 1) % 6], in_sector[(2 * channel + 4) % 6]
        found[channel] = (high & top) | (falling & fall) | (rising & rise) | (low & ~(top | fall | rise))
    return found


def _all_bits(where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """255 where it is true: with such a mask, values are chosen without a branch for each."""
    return np.negative(where.view(np.int8)).view(np.uint8)


def _as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return (values * _TO_8_BITS).astype(np.uint8)
