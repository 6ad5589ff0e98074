"""Which images an encoder takes: their layout, size and range of values."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Shaped
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.text import counted

_LEAST, _MOST = -0.2, 1.2
"""Bicubic resizing oversteps [0, 1] by this much at hard edges; stored and normalised images by far more."""


def check_layout(images: Shaped[Tensor, "..."], in_chans: int) -> None:
    """Raises where images are not (B, C, H, W) with `in_chans` channels."""
    shape = tuple(images.shape)
    if images.ndim != 4:
        one = "; of a single image give images[None]" if images.ndim == 3 else ""
        raise LaminaError(f"images have the shape {shape}, and the encoder takes (B, C, H, W){one}")
    if shape[1] == in_chans:
        return
    if shape[3] == in_chans:
        raise LaminaError(
            f"images have the shape {shape}, channels last, and the encoder takes (B, C, H, W); give "
            "images.permute(0, 3, 1, 2)"
        )
    channels = counted(shape[1], "channel")
    raise LaminaError(f"images have {channels}, the encoder takes {in_chans}; set in_chans")


def check_range(images: Shaped[Tensor, "..."]) -> bool:
    """Warn where float images are not on [0, 1]; whether it was looked.

    Nothing is looked at in integers, which say their range, nor while a forward is traced. It waits for the
    device, so call it once for a network and not in each step.
    """
    if torch.compiler.is_compiling() or not images.is_floating_point() or images.is_meta or not len(images):
        return False
    least, most = (float(end) for end in torch.aminmax(images.detach()))
    if least < _LEAST:
        _warn(
            "below 0: they seem to be normalised already, and lamina normalises by the encoder's own mean "
            "and std; leave the normalisation out"
        )
    elif most > _MOST:
        _warn("above 1; divide 8-bit values by 255, or give them as uint8")
    return True


def _warn(what: str) -> None:
    # The line that is named is this one: a frame of torch's, of any depth, is between it and the caller.
    warnings.warn(
        f"lamina takes images as uint8, or float in [0, 1], and these are float with values {what}",
        stacklevel=1,
    )
