"""Mean and standard deviation of each channel, for `--mean auto --std auto`."""

from __future__ import annotations

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.rng import permutation
from lamina.data.decode.unreadable import Unreadable
from lamina.data.options import DataOptions
from lamina.data.sources import Source

_BAND_PX = 1 << 16
_TOGETHER = 64
"""Images that are read at the same time, where they come from a remote."""


def channel_stats(
    source: Source, in_chans: int, options: DataOptions | None = None, most: int = 1024, seed: int = 0
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in [0, 1] units, to six decimals.

    They are those of a pixel drawn by first drawing an image (of at most `most`, chosen by `seed`), then
    one of its pixels: large images do not count more than small ones. Bad files are left out. A channel
    without any contrast gets the standard deviation 1.

    Raises:
        LaminaError: if no image can be read.
    """
    how = (options or DataOptions()).decoding(in_chans)
    mean, square, n = torch.zeros(in_chans).double(), torch.zeros(in_chans).double(), 0
    for k, index in enumerate(chosen := permutation(seed, 0, len(source))[:most].tolist()):
        if k % _TOGETHER == 0:
            source.read_ahead(chosen[k : k + _TOGETHER], how)
        try:
            image = source.read(index, how)
        except Unreadable:
            continue
        first, second = _moments(image)
        mean += first
        square += second
        n += 1
    if not n:
        raise LaminaError("no image can be read to measure mean and std; see `lamina data check`")
    mean = mean / n
    std = (square / n - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std < 1e-6, torch.ones_like(std), std)
    return tuple(round(m, 6) for m in mean.tolist()), tuple(round(s, 6) for s in std.tolist())


def _moments(image: Shaped[Tensor, "C H W"]) -> tuple[Float64[Tensor, "C"], Float64[Tensor, "C"]]:
    """Mean and mean square of each channel in [0, 1] units, from some rows at a time: as float64 all of a
    large image would take eight times its memory."""
    height, width = image.shape[1:]
    sums, squares = torch.zeros(len(image)).double(), torch.zeros(len(image)).double()
    for rows in torch.split(image, max(1, _BAND_PX // width), 1):
        pixels = unit_float(rows).flatten(1).double()
        sums += pixels.sum(1)
        squares += pixels.square().sum(1)
    return sums / (height * width), squares / (height * width)
