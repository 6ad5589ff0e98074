"""Which patches are hidden: the same count in every row, drawn from the samples' own keys."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.errors import LaminaError
from lamina.rng import Purpose, bits

Grid = tuple[int, int]


@dataclass(frozen=True)
class MaskingOptions:
    """Which patches are hidden."""

    kind: Literal["random", "blocks"] = "random"
    """random: single patches (MAE). blocks: square units of several patches (SimMIM)."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden."""
    unit_px: int = 32
    """Side of a unit in pixels, for blocks."""


def _check_ratio(mask_ratio: float) -> None:
    if not 0 < mask_ratio < 1:
        raise LaminaError(f"mask_ratio is {mask_ratio}; choose a share between 0 and 1, such as 0.75")


def _hide(keys: Tensor, n: int, n_hidden: int) -> Tensor:
    """Hide the `n_hidden` of `n` whose random number is largest; ties are broken by index."""
    order = bits(keys, n, Purpose.MASK).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return rank >= n - n_hidden


class RandomMasking:
    """Hide single patches, uniformly without replacement (MAE).

    The visible count is int(N * (1 - mask_ratio)), as in MAE but for its rounding noise: 100 patches at
    0.9 leave 10, where MAE's floating-point product leaves 9.
    """

    def __init__(self, mask_ratio: float = 0.75) -> None:
        _check_ratio(mask_ratio)
        self.mask_ratio = mask_ratio

    def n_visible(self, grid: Grid) -> int:
        """Visible patches of an image; raises where none, or all, would be."""
        n = grid[0] * grid[1]
        visible = int(n * (1 - self.mask_ratio) + 1e-6)
        if not 0 < visible < n:
            raise LaminaError(
                f"mask_ratio {self.mask_ratio} of {grid[0]} x {grid[1]} patches leaves {visible} visible; "
                "use a larger image, a smaller patch or another ratio"
            )
        return visible

    def __call__(
        self, keys: Int64[Tensor, "B"], grid: Grid, scores: Float[Tensor, "B N"] | None = None
    ) -> Bool[Tensor, "B N"]:
        """True where hidden; a function of the keys alone, on whatever device they are."""
        n = grid[0] * grid[1]
        return _hide(keys, n, n - self.n_visible(grid))


class BlockMasking:
    """Hide square units of `unit` x `unit` patches (SimMIM, arXiv 2111.09886, section 3.2).

    ceil(mask_ratio * units) units are hidden: 30 of 49 at 0.6 on 224 px with 32 px units.
    """

    def __init__(self, mask_ratio: float = 0.6, unit: int = 2) -> None:
        _check_ratio(mask_ratio)
        if unit < 1:
            raise LaminaError(
                f"a masking unit of {unit} patches is too small; unit_px must reach the patch size"
            )
        self.mask_ratio, self.unit = mask_ratio, unit

    def _units(self, grid: Grid) -> tuple[Grid, int]:
        if grid[0] % self.unit or grid[1] % self.unit:
            raise LaminaError(
                f"{grid[0]} x {grid[1]} patches cannot be tiled by masking units of {self.unit} x "
                f"{self.unit}; change image_size, patch_size or masking.unit_px"
            )
        units = (grid[0] // self.unit, grid[1] // self.unit)
        total = units[0] * units[1]
        hidden = math.ceil(self.mask_ratio * total - 1e-6)
        if not 0 < hidden < total:
            raise LaminaError(f"mask_ratio {self.mask_ratio} of {total} masking units hides {hidden} of them")
        return units, hidden

    def n_visible(self, grid: Grid) -> int:
        """Visible patches of an image; raises where units do not tile the grid."""
        units, hidden = self._units(grid)
        return (units[0] * units[1] - hidden) * self.unit**2

    def __call__(
        self, keys: Int64[Tensor, "B"], grid: Grid, scores: Float[Tensor, "B N"] | None = None
    ) -> Bool[Tensor, "B N"]:
        """True where hidden; a function of the keys alone, on whatever device they are."""
        units, hidden = self._units(grid)
        mask = _hide(keys, units[0] * units[1], hidden).reshape(-1, *units)
        return mask.repeat_interleave(self.unit, 1).repeat_interleave(self.unit, 2).flatten(1)


Masking = RandomMasking | BlockMasking


def build_masking(options: MaskingOptions, patch: tuple[int, int]) -> Masking:
    """The masking that the options describe, for square or oblong patches of `patch` px."""
    if options.kind == "random":
        return RandomMasking(options.mask_ratio)
    if patch[0] != patch[1] or options.unit_px % patch[0]:
        raise LaminaError(
            f"masking.unit_px {options.unit_px} is not a multiple of the {patch[0]} x {patch[1]} px patch"
        )
    return BlockMasking(options.mask_ratio, options.unit_px // patch[0])
