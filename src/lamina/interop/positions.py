"""Resamples the absolute and relative positions of weights to the grid of another network, as timm does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.models.beit import Beit
from torch import Tensor

from lamina.encoder.networks import Network

Grid = tuple[int, int]
"""Rows and columns of patches."""

_TABLE = "relative_position_bias_table"
_SHARED = f"rel_pos_bias.{_TABLE}"
_CLASS_OFFSETS = 3
"""Rows of a table for pairs with the class token: to it, from it, and of it with itself."""


@dataclass(frozen=True)
class Resampled:
    """Positions that were resampled: rows and columns of patches before and now, and whether the file stated
    the former (else its grid was taken to be square)."""

    before: Grid
    now: Grid
    stated: bool

    def __str__(self) -> str:
        (a, b), (c, d) = self.before, self.now
        assumed = "" if self.stated else ", which was taken to be square"
        return f"positions resampled to the new grid, from {a} x {b} patches{assumed}, to {c} x {d}"


def fit_positions(found: dict[str, Tensor], vit: Network, grid: Grid | None = None) -> Resampled | None:
    """Resample absolute and relative positions where the grid differs from the one in `found`: `grid` where
    it is known and fits; else a square one; else the network's own. Tables that fit none of these stay, and
    the check of shapes refuses them."""
    now = (int(vit.patch_embed.grid_size[0]), int(vit.patch_embed.grid_size[1]))
    own, old = vit.pos_embed, found.get("pos_embed")
    before = None
    if own is not None and old is not None and old.ndim == 3 and old.shape[-1] == own.shape[-1]:
        prefix = own.shape[1] - now[0] * now[1]
        before = _grid_before(old.shape[1] - prefix, now, grid, lambda side: side)
        if before not in (None, now):
            found["pos_embed"] = resample_abs_pos_embed(
                old, new_size=list(now), old_size=list(before), num_prefix_tokens=prefix
            )
    if isinstance(vit, Beit):
        before = _fit_relative(found, vit, now, grid) or before
    return None if before is None or before == now else Resampled(before, now, before == grid)


def _grid_before(n: int, now: Grid, grid: Grid | None, span: Callable[[int], int]) -> Grid | None:
    """The grid of a table with `n` rows, where `span` is the number of rows for a side; None where there is
    none."""
    if n < 1:
        return None
    side = round(n**0.5)
    square = next((s for s in range(1, side + 1) if span(s) == side), side)
    for rows, columns in (*([grid] if grid else []), (square, square), now):
        if span(rows) * span(columns) == n:
            return rows, columns
    return None


def _fit_relative(found: dict[str, Tensor], vit: Beit, now: Grid, grid: Grid | None) -> Grid | None:
    """Resample tables of relative positions as timm does; returns the grid that they were for. A table that
    all blocks share is copied to each block where the network has one for each, as in BEiT's and SimMIM's own
    fine-tuning."""
    own = vit.state_dict()
    tables = [name for name in own if name.endswith(_TABLE)]
    if _SHARED in found and _SHARED not in own:
        shared = found.pop(_SHARED)
        found |= {name: shared.clone() for name in tables}
    before = None
    for name in tables:
        old, new = found.get(name), own[name]
        if old is None or old.shape[1:] != new.shape[1:]:
            continue
        before = _grid_before(len(old) - _CLASS_OFFSETS, now, grid, _offsets)
        if before is None or before == now:
            continue
        table, extra = old[:-_CLASS_OFFSETS], old[-_CLASS_OFFSETS:]
        heads, (rows, columns) = table.shape[1], map(_offsets, before)
        shape = (heads, _offsets(now[0]), _offsets(now[1]))
        grown = resize_rel_pos_bias_table(
            table.T.reshape(heads, rows, columns), new_window_size=now, new_bias_shape=shape
        )
        found[name] = torch.cat([grown.flatten(1).T, extra])
    return before


def _offsets(side: int) -> int:
    """Number of offsets between two patches along a side: both directions, and zero."""
    return 2 * side - 1
