"""What a pack changes: its crops beside those of the originals, for a few of the images."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from lamina.core.batch import unit_float
from lamina.data.augment.crops import RandomResizedCrop
from lamina.data.options import Decoding
from lamina.data.sources import Source

MOST = 64
"""Images that are compared: with one crop of each, the quartiles are good to about a decibel."""
_MOST_DB = 100.0
"""PSNR of equal crops: that of a difference of 1e-5 of the range."""


@dataclass(frozen=True)
class Comparison:
    """One training crop of each of `n` images, from the pack and from the original."""

    n: int
    crop_px: int
    psnr_db: tuple[float, float, float]
    """Lower quartile, median and upper quartile of the crops' PSNR; the original is decoded in full."""
    speed: float
    """How many times as fast crops are made, in processor time; the original is decoded as in a new run."""

    def __str__(self) -> str:
        low, middle, high = self.psnr_db
        return (
            f"training crops of {self.crop_px} px differ from those of the originals by a PSNR of "
            f"{middle:.1f} dB (quartiles {low:.1f} and {high:.1f}; {self.n} images that were shrunk), and "
            f"are made {self.speed:.1f} times as fast"
        )


def compare(
    originals: Sequence[tuple[Source, int]], packed: Sequence[tuple[Source, int]], side: int, how: Decoding
) -> Comparison:
    """Compare images with what a pack has of them.

    Args:
        originals: sources and the indices of images in them.
        packed: the same for the pack.
        side: of the pack, in px; crops have 7/8 of it, as 224 px for 256.
        how: limits of decoding.
    """
    crop_px = max(1, round(side * 7 / 8))
    crop = RandomResizedCrop((crop_px, crop_px))
    draws = np.random.default_rng(0).random((len(originals), crop.n_draws)).tolist()
    pairs = list(zip(originals, packed, draws, strict=True))
    psnr = [_psnr(_crop(crop, a, how, d), _crop(crop, b, how, d)) for a, b, d in pairs]
    low, middle, high = np.quantile(psnr, (0.25, 0.5, 0.75)).tolist()
    seconds = []
    for each in (0, 1):
        started = time.process_time()
        for pair in pairs:
            _crop(crop, pair[each], replace(how, reduce=partial(crop.factor, draws=pair[2])), pair[2])
        seconds.append(time.process_time() - started)
    return Comparison(len(pairs), crop_px, (low, middle, high), seconds[0] / max(seconds[1], 1e-9))


def _crop(
    crop: RandomResizedCrop, place: tuple[Source, int], how: Decoding, draws: Sequence[float]
) -> Shaped[Tensor, "C h w"]:
    source, i = place
    found = source.inspect(i, how)
    return crop(found.image, draws, found.reduced)


def _psnr(a: Shaped[Tensor, "C h w"], b: Shaped[Tensor, "C h w"]) -> float:
    error = (unit_float(a).double() - unit_float(b).double()).square().mean().item()
    return min(_MOST_DB, -10 * math.log10(error)) if error else _MOST_DB
