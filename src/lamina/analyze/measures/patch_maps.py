"""Arithmetic of patch maps: principal components as colours, foreground, outlier norms, cosines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64
from skimage.filters import threshold_otsu
from torch import Tensor

from lamina.core.errors import LaminaError

OUTLIER_SIGMAS = 6.0
CLIPPED = (0.01, 0.99)
_SIGMA_OF_MAD = 1.482602218505602  # of a normal distribution: 1 / (the normal quantile of 3/4)


class Components(NamedTuple):
    """Projections on the first principal components, and the share of the variance that each explains."""

    values: Float64[Tensor, "M n"]
    share: Float64[Tensor, "n"]


def principal(rows: Float[Tensor, "M D"], n: int = 3) -> Components:
    """The first `n` principal components of `rows`, in float64.

    The sign of each is such that its loading of largest magnitude is positive, so colours do not depend on
    the solver. Components beyond the rank of the rows are zero.
    """
    centred = rows.double() - rows.double().mean(dim=0)
    variance, vectors = torch.linalg.eigh(centred.T @ centred)
    variance, vectors = variance.flip(0).clamp_min(0), vectors.flip(1)[:, :n]
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    values = centred @ (vectors * torch.where(largest < 0, -1.0, 1.0))
    null = variance[:n] <= 1e-12 * variance[:1].clamp_min(torch.finfo(torch.float64).tiny)
    values, share = values.masked_fill(null, 0.0), variance[:n].masked_fill(null, 0.0)
    missing = n - values.shape[1]
    total = variance.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return Components(F.pad(values, (0, missing)), F.pad(share / total, (0, missing)))


def colours(
    values: Float64[Tensor, "B N 3"], where: Bool[Tensor, "B N"] | None = None
) -> Float64[Tensor, "B N 3"]:
    """Three components as red, green and blue in [0, 1].

    Within each image a component is cut to its 1st and 99th percentile and stretched to the full range (to
    one half where it is the same everywhere). Patches where `where` is False have no part in it: black.
    """
    found = torch.zeros_like(values)
    for i, image in enumerate(values):
        inside = slice(None) if where is None else where[i]
        chosen = image[inside]
        if not len(chosen):
            continue
        low, high = torch.quantile(chosen, torch.tensor(CLIPPED, dtype=chosen.dtype), dim=0)
        flat = high - low <= 1e-9 * torch.maximum(low.abs(), high.abs())
        stretched = ((chosen - low) / (high - low).masked_fill(flat, 1.0)).clamp(0, 1)
        found[i, inside] = torch.where(flat, 0.5, stretched)
    return found


def foreground(first: Float64[Tensor, "B N"], grid: tuple[int, int]) -> Bool[Tensor, "B N"]:
    """Patches on one side of Otsu's threshold of the first component, jointly over the images.

    Which side: the one that is rarer on the border of the images than it is inside.
    """
    if first.max() - first.min() <= 1e-9 * first.abs().max():
        return torch.ones_like(first, dtype=torch.bool)
    above: Tensor = first > float(threshold_otsu(first.numpy()))  # type: ignore[no-untyped-call]
    border = torch.ones(grid, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    on_border, inside = above[:, border.flatten()].double(), above[:, ~border.flatten()].double()
    if inside.numel() and on_border.mean() > inside.mean():
        return ~above
    return above


@dataclass(frozen=True)
class Norms:
    """Norms of patch tokens before the final norm, over all images, and the outliers among them."""

    n_images: int
    n_tokens: int
    median: float
    sigma: float
    """Robust deviation: 1.4826 times the median distance from the median."""
    threshold: float
    """median + 6 sigma: a token with a larger norm is an outlier."""
    largest: float
    outliers: int
    share: float
    """Share of the tokens that are outliers."""
    images_with: float
    """Share of the images that have an outlier."""
    prefix: tuple[float, ...]
    """Mean norm of each class token and register."""


def norm_outliers(norms: Float64[Tensor, "n N"], prefix: tuple[float, ...] = ()) -> Norms:
    """Which tokens have a norm far above the others' (register artefacts: Darcet et al., 2024).

    Where most norms are the same, sigma is at least a thousandth of the median.
    """
    values = norms.numpy()
    median = float(np.median(values))
    sigma = max(_SIGMA_OF_MAD * float(np.median(np.abs(values - median))), 1e-3 * median)
    threshold = median + OUTLIER_SIGMAS * sigma
    out = values > threshold
    return Norms(
        n_images=len(values),
        n_tokens=values.size,
        median=median,
        sigma=sigma,
        threshold=threshold,
        largest=float(values.max()),
        outliers=int(out.sum()),
        share=float(out.mean()),
        images_with=float(out.any(axis=1).mean()),
        prefix=prefix,
    )


def cosines_to(tokens: Float[Tensor, "B N D"], patch: int) -> Float64[Tensor, "B N"]:
    """Cosine of each patch of an image with one of them."""
    unit = F.normalize(tokens.double(), dim=-1)
    return torch.einsum("bnd,bd->bn", unit, unit[:, patch]).clamp(-1, 1)


def mean_cosine(tokens: Float[Tensor, "B N D"]) -> Float64[Tensor, "B"]:
    """Mean cosine of two different patches of an image: 1 where all patches have the same direction."""
    unit, n = F.normalize(tokens.double(), dim=-1), tokens.shape[1]
    return (unit.sum(dim=1).square().sum(dim=-1) - n) / max(n * (n - 1), 1)


def same_place(at: tuple[int, int], grid: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The patch of `other` that holds the centre of the patch `at` (row, column) of `grid`.

    Raises:
        LaminaError: where `at` lies outside of `grid`.
    """
    if not all(0 <= place < count for place, count in zip(at, grid, strict=True)):
        raise LaminaError(
            f"patch {at} is outside of the grid of {grid[0]} x {grid[1]} patches; give a row and a column of "
            "it, counted from 0"
        )
    row, column = ((2 * p + 1) * o // (2 * g) for p, g, o in zip(at, grid, other, strict=True))
    return row, column
