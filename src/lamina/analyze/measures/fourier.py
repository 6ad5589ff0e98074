"""Amplitudes of token maps by spatial frequency: which coefficients lie where, curves and two bands."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lamina.analyze.options import Direction, Mode
from lamina.core.errors import LaminaError


@dataclass(frozen=True)
class Bands:
    """Mean amplitude per coefficient of the orthonormal transform, DC left out."""

    low: float | None
    """0 < |omega| < pi/2; None where the grid is too small to have any."""
    high: float
    """|omega| >= pi/2."""
    share_high: float
    """The high band's sum over the sum of both; 0 for maps that are constant."""


@dataclass(frozen=True)
class Curve:
    """Values by angular frequency in units of pi, each the mean of `counts` coefficients."""

    frequencies: tuple[float, ...]
    counts: tuple[int, ...]
    values: tuple[float, ...]


def magnitudes(h: int, w: int) -> Float[Tensor, "h w"]:
    """|omega| of each coefficient of `fft2` in units of pi: 1 at an axis' Nyquist, sqrt 2 at the corner."""
    y, x = (2 * torch.fft.fftfreq(n, dtype=torch.float64) for n in (h, w))
    return torch.hypot(y[:, None], x[None])


def rings(h: int, w: int) -> Int64[Tensor, "h w"]:
    """The ring of each coefficient: |omega| to the nearest multiple of 2 pi / min(h, w); DC is ring 0."""
    return (magnitudes(h, w) * min(h, w) / 2 + 1e-9).round().long()


def curve(values: Float[Tensor, "h w"], mode: Mode, direction: Direction) -> Curve:
    """Values of an unshifted spectrum along one direction; see `analyze_frequency` for modes.

    Raises:
        LaminaError: where the grid has no such curve.
    """
    h, w = values.shape
    if mode == "park-kim":
        if direction != "diagonal" or h != w or h % 2:
            raise LaminaError(
                f"mode park-kim is the diagonal of square grids with an even side, not {direction} on "
                f"{h} x {w}; take mode exact"
            )
        along = torch.roll(values, (h // 2, w // 2), (0, 1)).diagonal()[h // 2 :]
        labels = torch.linspace(0, 1, len(along), dtype=torch.float64)
        return Curve(tuple(labels.tolist()), (1,) * len(along), tuple(along.tolist()))
    if direction == "diagonal":
        shared = math.gcd(h, w)
        if shared == 1:
            raise LaminaError(f"a grid of {h} x {w} has no diagonal beyond DC; take direction radial")
        steps = range(shared // 2 + 1)
        found = [float(values[k * h // shared, k * w // shared]) for k in steps]
        return Curve(tuple(2 * k / shared for k in steps), (1,) * len(found), tuple(found))
    return radial(values, magnitudes(h, w), rings(h, w))


def radial(values: Float[Tensor, "h w"], at: Float[Tensor, "h w"], ring: Int64[Tensor, "h w"]) -> Curve:
    """Means over rings: of the frequencies `at` which coefficients lie, and of their values."""
    flat = ring.flatten()
    counts = torch.bincount(flat)
    kept = counts > 0

    def mean(of: Tensor) -> tuple[float, ...]:
        summed = torch.bincount(flat, of.flatten().double())
        return tuple((summed[kept] / counts[kept]).tolist())

    return Curve(mean(at), tuple(counts[kept].tolist()), mean(values))


def log_amplitudes(maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "h w"]:
    """Sum over batch and channel of log(|fft2| + 1e-6), float64 on the CPU."""
    spectrum: Tensor = torch.fft.fft2(maps.double())
    return torch.log(spectrum.abs() + 1e-6).sum((0, 1)).cpu()


def amplitudes(maps: Float[Tensor, "B D h w"]) -> Float[Tensor, "h w"]:
    """Sum over batch and channel of |fft2| / sqrt(h w), float64 on the CPU."""
    spectrum: Tensor = torch.fft.fft2(maps.double(), norm="ortho")
    return spectrum.abs().sum((0, 1)).cpu()


def bands_of(spectrum: Float[Tensor, "h w"]) -> Bands:
    """The two bands of mean amplitudes."""
    at = magnitudes(*spectrum.shape)
    low, high = spectrum[(at > 0) & (at < 0.5)], spectrum[at >= 0.5]
    if not len(high):
        raise LaminaError("a single token has no frequencies; give maps of 2 tokens or more")
    total = float(low.sum() + high.sum())
    share = float(high.sum()) / total if total else 0.0
    return Bands(float(low.mean()) if len(low) else None, float(high.mean()), share)
