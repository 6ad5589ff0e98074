"""Nearest neighbours by cosine, chunk by chunk: memory grows with neither the bank nor the queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

MOST_CELLS = 1 << 25
"""Numbers in the largest tensor of a search: 128 MiB of float32. At most six such are alive at once."""
_NARROW = 256


@dataclass(frozen=True)
class Chunks:
    """The numbers of queries and of rows of the bank that are compared at a time."""

    queries: int
    bank: int

    @classmethod
    def fitting(cls, n: int, width: int, most: int) -> Chunks:
        """Within `MOST_CELLS`, for n samples of so many channels of which `most` are wanted.

        The bank's chunks are long, since each costs a merge.
        """
        bank = max(1, min(n, MOST_CELLS // max(width, _NARROW)))
        return cls(max(1, MOST_CELLS // max(bank, width, 2 * most)), bank)


class Neighbours(NamedTuple):
    """The neighbours of consecutive queries from number `start` on, nearest first."""

    start: int
    similarity: Float[Tensor, "q m"]
    rows: Int64[Tensor, "q m"]
    """Row numbers in the bank."""


@torch.no_grad()
def nearest(
    bank: Float[Tensor, "n D"],
    queries: Float[Tensor, "Q D"] | None,
    most: int,
    *,
    own: Int64[Tensor, "Q"] | None = None,
    centre: Float[Tensor, "D"] | None = None,
    device: torch.device | None = None,
    chunks: Chunks | None = None,
) -> Iterator[Neighbours]:
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
    # The same memory for every chunk: fresh memory of this size is slow to come by.
    space = torch.empty(chunks.bank, bank.shape[1], device=device)
    table = torch.empty(chunks.queries * chunks.bank, device=device)
    for start, part, own_rows in _parts(bank, queries, own, chunks.queries):
        rows = _unit(part, centre, torch.empty(part.shape, device=device))
        best: tuple[Tensor, Tensor] | None = None
        for first in range(0, len(bank), chunks.bank):
            chunk = bank[first : first + chunks.bank]
            cosines = table[: len(rows) * len(chunk)].view(len(rows), len(chunk))
            torch.mm(rows, _unit(chunk, centre, space[: len(chunk)]).T, out=cosines)
            if own_rows is not None:
                _leave_out(cosines, own_rows.to(device) - first)
            values, columns = _largest(cosines, most)
            best = _merged(best, values, columns + first, most)
        assert best is not None
        yield Neighbours(start, *best)


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
    rows: Float[Tensor, "r D"], centre: Float[Tensor, "D"] | None, out: Float[Tensor, "r D"]
) -> Float[Tensor, "r D"]:
    """The rows centred and normalised, in `out`."""
    rows = rows.to(out.device)
    if centre is None:
        out.copy_(rows)
    else:
        torch.sub(rows, centre, out=out)
    return out.div_(out.norm(dim=1, keepdim=True).clamp_min_(1e-12))


def _leave_out(cosines: Float[Tensor, "q b"], columns: Int64[Tensor, "q"]) -> None:
    """The column of each row that is the row itself, where it is among these."""
    here = ((columns >= 0) & (columns < cosines.shape[1])).nonzero()[:, 0]
    cosines[here, columns[here]] = -torch.inf


def _largest(cosines: Float[Tensor, "q b"], most: int) -> tuple[Float[Tensor, "q m"], Int64[Tensor, "q m"]]:
    """The largest of each row, in descending order, and their columns; of equal ones the lower columns."""
    if cosines.shape[1] <= most:
        values, columns = cosines.sort(dim=1, descending=True, stable=True)
        return values, columns
    values, columns = cosines.topk(most + 1, dim=1)
    # topk takes any of equal values, in any order. One more than is wanted shows where some were left out.
    equal = values[:, 1:] == values[:, :-1]
    values, columns = values[:, :most], columns[:, :most]
    rows = equal.any(dim=1).nonzero()[:, 0]
    columns[rows] = columns[rows].sort(dim=1).values
    values[rows], order = cosines[rows[:, None], columns[rows]].sort(dim=1, descending=True, stable=True)
    columns[rows] = columns[rows].gather(1, order)
    for some in torch.split(equal[:, -1].nonzero()[:, 0], max(1, len(cosines) // 4)):
        whole = cosines[some].sort(dim=1, descending=True, stable=True)
        columns[some] = whole.indices[:, :most]
    return values, columns


def _merged(
    best: tuple[Float[Tensor, "q m"], Int64[Tensor, "q m"]] | None,
    values: Float[Tensor, "q k"],
    rows: Int64[Tensor, "q k"],
    most: int,
) -> tuple[Float[Tensor, "q M"], Int64[Tensor, "q M"]]:
    """The largest of both; what was found before has lower rows, and a stable sort keeps it first."""
    if best is None:
        return values, rows
    both, order = torch.cat([best[0], values], dim=1).sort(dim=1, descending=True, stable=True)
    return both[:, :most], torch.cat([best[1], rows], dim=1).gather(1, order)[:, :most]
