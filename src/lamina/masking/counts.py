"""What the maskings share: how many patches stay visible, and hiding those with the largest numbers."""

from __future__ import annotations

from jaxtyping import Bool, Shaped
from torch import Tensor

from lamina.core.errors import LaminaError

Grid = tuple[int, int]


def check_ratio(mask_ratio: float) -> None:
    """Raises where a mask ratio is no share."""
    if not 0 < mask_ratio < 1:
        raise LaminaError(f"mask_ratio is {mask_ratio}; choose a share between 0 and 1, such as 0.75")


def check_visible(visible: int, mask_ratio: float, grid: Grid) -> int:
    """`visible`, or an error where no patch, or every patch, would be."""
    if not 0 < visible < grid[0] * grid[1]:
        raise LaminaError(
            f"mask_ratio {mask_ratio} of {grid[0]} x {grid[1]} patches leaves {visible} visible; "
            "use a larger image, a smaller patch or another ratio"
        )
    return visible


def whole_visible(mask_ratio: float, grid: Grid) -> int:
    """int(N * (1 - mask_ratio)), as in MAE but for its rounding noise: 100 patches at 0.9 leave 10, where
    MAE's floating-point product leaves 9."""
    return check_visible(int(grid[0] * grid[1] * (1 - mask_ratio) + 1e-6), mask_ratio, grid)


def hide_largest(numbers: Shaped[Tensor, "B N"], n_hidden: int) -> Bool[Tensor, "B N"]:
    """Hide the `n_hidden` of each row whose number is largest; ties are broken by index."""
    rank = numbers.argsort(dim=1, stable=True).argsort(dim=1)
    return rank >= numbers.shape[1] - n_hidden
