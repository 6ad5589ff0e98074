"""Nearest neighbours by cosine, chunk by chunk: memory grows with neither the bank nor the queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MOST_CELLS = 1 << 24
"""Numbers in the largest tensor of a search: 64 MiB of float32. At most six such are alive at once."""
_NARROW = 256


@dataclass(frozen=True)
class Chunks:
    """How many rows of queries are compared with how many rows of the bank at a time."""

    queries: int
    bank: int

    @classmethod
    def fitting(cls, n: int, width: int, most: int) -> Chunks:
        """Within `MOST_CELLS`, for n samples of so many channels of which `most` are wanted.

        The bank's chunks are long, since each costs a merge.
        """
        bank = max(1, min(n, MOST_CELLS // max(width, _NARROW)))
        return cls(max(1, MOST_CELLS // max(bank, width, 2 * most)), bank)


class Found(NamedTuple):
    """The neighbours of consecutive queries from number `start` on, nearest first."""

    start: int
    similarity: Float[Tensor, "q m"]
    rows: Int64[Tensor, "q m"]
    """Of the bank."""


def nearest(
    bank: Float[Tensor, "n D"],
    queries: Float[Tensor, "Q D"] | None,
    most: int,
    *,
    own: Int64[Tensor, "Q"] | None = None,
    centre: Float[Tensor, "D"] | None = None,
    device: torch.device | None = None,
    chunks: Chunks | None = None,
) -> Iterator[Found]:
    """The `most` rows of the bank with the largest cosine, for each query; of equal ones the lower rows.

    Args:
        bank, queries: wherever they are; a chunk at a time is moved to `device`, centred and normalised
            there, so that neither is copied as a whole. `queries=None` asks for rows of the bank itself,
            none of which is its own neighbour.
        most: at most the rows of the bank, less one where they are the queries.
        own: with `queries=None`, which rows; all by default.
        centre: taken off every row before the cosine.
        device: where it is computed, and where the answers are; by default where the bank is.
        chunks: rows at a time; beyond rounding the answers do not depend on it.
    """
    device = bank.device if device is None else device
    centre = None if centre is None else centre.to(device)
    chunks = chunks or Chunks.fitting(len(bank), bank.shape[1], most)
    for start, asked, taken in _parts(bank, queries, own, chunks.queries):
        rows = _unit(asked, centre, device)
        similarity = rows.new_empty(len(rows), 0)
        index = torch.empty(len(rows), 0, dtype=torch.int64, device=device)
        for first in range(0, len(bank), chunks.bank):
            cosines = rows @ _unit(bank[first : first + chunks.bank], centre, device).T
            if taken is not None:
                _leave_out(cosines, taken.to(device) - first)
            columns = _largest(cosines, most)
            both = torch.cat([similarity, cosines.gather(1, columns)], dim=1)
            # Stable, and what was found before has lower rows: equal ones stay in the order of their rows.
            both, order = both.sort(dim=1, descending=True, stable=True)
            index = torch.cat([index, columns + first], dim=1).gather(1, order)[:, :most]
            similarity = both[:, :most]
        yield Found(start, similarity, index)


def _parts(
    bank: Float[Tensor, "n D"],
    queries: Float[Tensor, "Q D"] | None,
    own: Int64[Tensor, "Q"] | None,
    size: int,
) -> Iterator[tuple[int, Float[Tensor, "q D"], Int64[Tensor, "q"] | None]]:
    """The queries, so many at a time, and which rows of the bank they are, if any."""
    if queries is not None:
        for start in range(0, len(queries), size):
            yield start, queries[start : start + size], None
        return
    own = torch.arange(len(bank)) if own is None else own
    for start in range(0, len(own), size):
        rows = own[start : start + size].to(bank.device)
        yield start, bank[rows], rows


def _unit(
    rows: Float[Tensor, "r D"], centre: Float[Tensor, "D"] | None, device: torch.device
) -> Float[Tensor, "r D"]:
    """A centred and normalised copy."""
    unit = rows.to(device, torch.float32, copy=True)
    if centre is not None:
        unit -= centre
    return unit.div_(unit.norm(dim=1, keepdim=True).clamp_min_(1e-12))


def _leave_out(cosines: Float[Tensor, "q b"], columns: Int64[Tensor, "q"]) -> None:
    """The column of each row that is the row itself, where it is among these."""
    here = ((columns >= 0) & (columns < cosines.shape[1])).nonzero()[:, 0]
    cosines[here, columns[here]] = -torch.inf


def _largest(cosines: Float[Tensor, "q b"], most: int) -> Int64[Tensor, "q m"]:
    """Columns of the largest of each row, ascending; where equal ones do not all fit, the lower columns."""
    q, b = cosines.shape
    if b <= most:
        return torch.arange(b, device=cosines.device).expand(q, b)
    values, columns = cosines.topk(most + 1, dim=1)
    columns = columns[:, :most]
    # topk may take any of equal values: ask again where one that was left equals the last that was taken.
    tied = (values[:, most] == values[:, most - 1]).nonzero()[:, 0]
    for rows in torch.split(tied, max(1, q // 4)):
        columns[rows] = cosines[rows].sort(dim=1, descending=True, stable=True).indices[:, :most]
    return columns.sort(dim=1).values
