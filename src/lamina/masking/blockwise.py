"""Rectangles of any size and place, until the count is reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, uniform
from lamina.masking.counts import Grid, check_ratio, check_visible, hide_largest

_MAX_ASPECT = 1 / 0.3
_TRIES = 10
"""Refused rectangles in a row after which BEiT's code draws no more."""
_DRAWS = 256
"""Rectangles tried for an image: 12 on average at BEiT's sizes, 39 at most for 4,000 keys. Where they run
out, single patches make up the count."""


class Block(NamedTuple):
    """A rectangle of patches."""

    top: int
    left: int
    height: int
    width: int


class BlockwiseMasking:
    """Hide rectangles until exactly round(mask_ratio * N) patches are hidden (BEiT, arXiv 2106.08254,
    Algorithm 1): 75 of 196 at BEiT's ratio 75 / 196, 78 at MaskFeat's 0.4.

    As in BEiT's code a rectangle that would hide too many is drawn anew, and after ten refusals in a row the
    rest is single patches, uniformly. `min_block` is the least area that is asked for while as many patches
    are left to hide; where half of the count is less, that half is: 5 patches for the 10 of 4 x 6 at 0.4.
    """

    def __init__(self, mask_ratio: float = 0.4, min_block: int = 16) -> None:
        check_ratio(mask_ratio)
        if min_block < 1:
            raise LaminaError(f"masking.min_block is {min_block} patches; choose 1 or more, such as 16")
        self.mask_ratio, self.min_block = mask_ratio, min_block

    def n_visible(self, grid: Grid) -> int:
        """Visible patches of an image; raises where none, or all, would be."""
        n = grid[0] * grid[1]
        return check_visible(n - round(self.mask_ratio * n), self.mask_ratio, grid)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not say what it gives
    def __call__(
        self, keys: Int64[Tensor, "B"], grid: Grid, scores: Float[Tensor, "B N"] | None = None
    ) -> Bool[Tensor, "B N"]:
        """True where hidden; a function of the keys alone. Made on the CPU: waits for keys elsewhere, and
        `torch.compile` leaves it as it is (each number would be compiled anew)."""
        n = grid[0] * grid[1]
        n_hidden = n - self.n_visible(grid)
        least = max(1, min(self.min_block, n_hidden // 2))
        numbers = uniform(keys.cpu(), 4 * _DRAWS + n, Purpose.MASK)
        draws, single = numbers[:, : 4 * _DRAWS], numbers[:, 4 * _DRAWS :]
        rows = [lay_blocks(row, grid, n_hidden, least)[0] for row in draws.tolist()]
        laid = torch.from_numpy(np.stack(rows)).flatten(1) if rows else torch.zeros(0, n)
        # Those under a rectangle come first, whatever their own number: it is below one.
        return hide_largest(laid + single, n_hidden).to(keys.device)


def lay_blocks(
    draws: Sequence[float], grid: Grid, n_hidden: int, least: int
) -> tuple[Bool[np.ndarray, "rows columns"], list[Block]]:
    """Rectangles that together cover at most `n_hidden` patches, from uniform numbers in [0, 1).

    Four numbers make a rectangle: its area, uniform from `least` to what is left to hide; its aspect,
    log-uniform in [0.3, 1 / 0.3]; its row; its column. It stays below the whole height and width, covers
    something new and nothing in excess, or is refused.

    Returns:
        what is covered, and the rectangles in their order.
    """
    rows, columns = grid
    covered = np.zeros(grid, dtype=bool)
    blocks: list[Block] = []
    left_to_hide, refused = n_hidden, 0
    for area, aspect, down, across in zip(*[iter(draws)] * 4, strict=False):
        if left_to_hide == 0 or refused == _TRIES:
            break
        refused += 1
        size = least + area * (left_to_hide - least)
        stretch = _MAX_ASPECT ** (2 * aspect - 1)
        height, width = round(math.sqrt(size * stretch)), round(math.sqrt(size / stretch))
        # A side of one patch has nothing below its whole.
        if height > max(1, rows - 1) or width > max(1, columns - 1):
            continue
        top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
        window = covered[top : top + height, left : left + width]
        new = height * width - int(np.count_nonzero(window))
        if 0 < new <= left_to_hide:
            window[:] = True
            blocks.append(Block(top, left, height, width))
            left_to_hide, refused = left_to_hide - new, 0
    return covered, blocks
