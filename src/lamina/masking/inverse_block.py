"""One rectangle stays visible, all around it is hidden."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.core.rng import Purpose, uniform
from lamina.masking.counts import Grid, check_ratio, check_visible

_MAX_ASPECT = 2.0


class InverseMasking:
    """Leave one rectangle visible (CAPI's inverse block, arXiv 2502.08769): int(mask_ratio * N)
    patches are hidden.

    The aspect is log-uniform in [0.5, 2], or as near to it as the grid allows; the rectangle's last row is
    cut short where the count asks for it. With `roll` it may leave the grid on one side and come in on the
    other, so that every patch is visible equally often; without, the middle is visible more often.
    """

    def __init__(self, mask_ratio: float = 0.65, roll: bool = True) -> None:
        check_ratio(mask_ratio)
        self.mask_ratio, self.roll = mask_ratio, roll

    def n_visible(self, grid: Grid) -> int:
        """Visible patches of an image; raises where none, or all, would be."""
        n = grid[0] * grid[1]
        return check_visible(n - int(n * self.mask_ratio + 1e-6), self.mask_ratio, grid)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not say what it gives
    def __call__(
        self, keys: Int64[Tensor, "B"], grid: Grid, scores: Float[Tensor, "B N"] | None = None
    ) -> Bool[Tensor, "B N"]:
        """True where hidden; a function of the keys alone. Made on the CPU: waits for keys elsewhere, and
        `torch.compile` leaves it as it is."""
        rows, columns = grid
        n = self.n_visible(grid)
        aspect, down, across = uniform(keys.cpu(), 3, Purpose.MASK).T
        height, width = sides(aspect, n, grid)
        below = _offset(down, height, rows, self.roll)[:, :, None]
        right = _offset(across, width, columns, self.roll)[:, None, :]
        width = width[:, None, None]
        # Counted row by row from the rectangle's corner, the first n are visible.
        visible = (right < width) & (below * width + right < n)
        return ~visible.flatten(1).to(keys.device)


def sides(aspect: Float[Tensor, "B"], n: int, grid: Grid) -> tuple[Int64[Tensor, "B"], Int64[Tensor, "B"]]:
    """Height and width of rectangles that fit the grid and hold n patches, with less than one row and one
    column to spare."""
    least, most = math.log(n / grid[1] ** 2), math.log(grid[0] ** 2 / n)
    low, high = (min(max(bound, least), most) for bound in (-math.log(_MAX_ASPECT), math.log(_MAX_ASPECT)))
    stretch = (low + aspect * (high - low)).exp()
    # A root that is whole may come out a rounding above.
    height, width = ((n * s).sqrt().sub(1e-9).ceil().long() for s in (stretch, 1 / stretch))
    return height, width


def _offset(at: Float[Tensor, "B"], side: Int64[Tensor, "B"], of: int, roll: bool) -> Int64[Tensor, "B of"]:
    """How far each row (or column) of the grid lies behind the rectangle's first, around the edge."""
    places = torch.full_like(side, of) if roll else of - side + 1
    start = (at * places).long()
    return (torch.arange(of) - start[:, None]) % of
