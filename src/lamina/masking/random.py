"""Single patches, uniformly."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.core.rng import Purpose, bits
from lamina.masking.counts import Grid, check_ratio, hide_largest, whole_visible


class RandomMasking:
    """Hide single patches, uniformly without replacement (MAE).

    The visible count is int(N * (1 - mask_ratio)), as in MAE but for its rounding noise: 100 patches at
    0.9 leave 10, where MAE's floating-point product leaves 9.
    """

    def __init__(self, mask_ratio: float = 0.75) -> None:
        check_ratio(mask_ratio)
        self.mask_ratio = mask_ratio

    def n_visible(self, grid: Grid) -> int:
        """Visible patches of an image; raises where none, or all, would be."""
        return whole_visible(self.mask_ratio, grid)

    def __call__(
        self, keys: Int64[Tensor, "B"], grid: Grid, scores: Float[Tensor, "B N"] | None = None
    ) -> Bool[Tensor, "B N"]:
        """True where hidden; a function of the keys alone, on whatever device they are."""
        n = grid[0] * grid[1]
        return hide_largest(bits(keys, n, Purpose.MASK), n - self.n_visible(grid))
