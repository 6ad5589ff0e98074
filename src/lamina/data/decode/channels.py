"""From the channels a file has to the channels an encoder takes; what would lose or invent is refused."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Shaped
from torch import Tensor

from lamina.core.text import counted
from lamina.data.decode.unreadable import Reason, Unreadable

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luminance (ITU-R BT.601, as in Pillow's mode L)."""
_LUMA_16BIT = (19595, 38470, 7471)
_BAND_PX = 1 << 16


def fit_channels(
    image: Shaped[Tensor, "C H W"], in_chans: int | None, alpha: bool, background: int = 255
) -> Shaped[Tensor, "in_chans H W"]:
    """The image with `in_chans` channels (None: as it is), in its own dtype (uint8, or float in [0, 1]).

    - As many channels as wanted: unchanged, an alpha channel included.
    - An alpha channel that is not wanted (`alpha`: the last channel is one): composited on `background`.
    - Grey to RGB by repetition, RGB to grey by luminance (ITU-R BT.601).

    Raises:
        Unreadable: for any other conversion.
    """
    if in_chans is None or len(image) == in_chans:
        return image
    if alpha:
        image = composite(image, background)
    if len(image) == in_chans:
        return image
    if len(image) == 1 and in_chans == 3:
        return image.expand(3, -1, -1)
    if len(image) == 3 and in_chans == 1:
        return luminance(image)
    raise Unreadable(Reason.CHANNELS, f"{counted(len(image), 'channel')} where {in_chans} are wanted")


def composite(image: Shaped[Tensor, "C H W"], background: int) -> Shaped[Tensor, "C-1 H W"]:
    """Colour over a uniform grey level: alpha * colour + (1 - alpha) * background, rounded for uint8."""
    return _by_rows(lambda rows: _composite(rows, background), image, len(image) - 1)


def _composite(image: Shaped[Tensor, "C H W"], background: int) -> Shaped[Tensor, "C-1 H W"]:
    colour, alpha = image[:-1], image[-1:]
    if image.is_floating_point():
        return colour * alpha + (1 - alpha) * (background / 255)
    alpha = alpha.int()
    mixed = colour.int() * alpha + (255 - alpha) * background
    return ((mixed + 127) // 255).to(torch.uint8)


def luminance(image: Shaped[Tensor, "3 H W"]) -> Shaped[Tensor, "1 H W"]:
    """Luminance of an RGB image; for uint8 the same integers as Pillow's `convert("L")`."""
    return _by_rows(_luminance, image, 1)


def _by_rows(
    change: Callable[[Tensor], Tensor], image: Shaped[Tensor, "C H W"], channels: int
) -> Shaped[Tensor, "channels H W"]:
    """`change` of some rows at a time: its steps take 4 bytes where a stored value takes one."""
    rows = max(1, _BAND_PX // max(1, image.shape[2]))
    if image.shape[1] <= rows:
        return change(image)
    found = image.new_empty(channels, *image.shape[1:])
    for part, into in zip(torch.split(image, rows, 1), torch.split(found, rows, 1), strict=True):
        into.copy_(change(part))
    return found


def _luminance(image: Shaped[Tensor, "3 H W"]) -> Shaped[Tensor, "1 H W"]:
    if image.is_floating_point():
        return (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    weights = torch.tensor(_LUMA_16BIT, dtype=torch.int32)[:, None, None]
    total = (image.int() * weights).sum(0, keepdim=True, dtype=torch.int32)
    return ((total + (1 << 15)) >> 16).to(torch.uint8)
