"""Scores of several models in one table: protocols as rows, the best in bold only where it is clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lamina.downstream.score import Score
from lamina.statistics import Estimate, difference, estimate, seeds_of

LOWER_IS_BETTER = ("error", "mCE")
"""Parts of the names of metrics of which less is better."""


@dataclass(frozen=True)
class Cell:
    """One model by one protocol."""

    over_seeds: Estimate
    """Mean over seeds, and half of its 95 % interval (Student's t) where there are two or more."""
    interval: tuple[float, float] | None
    """Of a single seed alone, the score's own: over test images, or draws of labels."""
    values: tuple[float, ...]
    """By seed."""
    seeds: tuple[int, ...]
    best: bool = False
    """Whether it is better than every other model by more than its interval."""

    def tell(self) -> str:
        """In percent: "71.3 ± 0.8" over seeds, or "71.3 (69.0 to 73.5)" of a single one."""
        if self.over_seeds.half is not None or self.interval is None:
            return self.over_seeds.tell(100)
        low, high = (100 * bound for bound in self.interval)
        return f"{self.over_seeds.tell(100)} ({low:.1f} to {high:.1f})"


@dataclass(frozen=True)
class ComparisonRow:
    """One protocol on one set of data."""

    protocol: str
    data: str
    metric: str
    n_train: int
    n_test: int
    cells: tuple[Cell | None, ...]

    @property
    def seeds(self) -> int:
        """How many there are of each model, at least."""
        return min(cell.over_seeds.n for cell in self.cells if cell is not None)

    def gain(self, column: int, over: int) -> Estimate | None:
        """The difference to another model, seed by seed; None where seeds are not paired."""
        ours, theirs = self.cells[column], self.cells[over]
        if ours is None or theirs is None or ours.seeds != theirs.seeds:
            return None
        return difference(ours.values, theirs.values)


@dataclass(frozen=True)
class Comparison:
    """Models by name, and what each protocol says of them."""

    columns: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]

    @classmethod
    def of(cls, scores: Mapping[str, Sequence[Score]]) -> Comparison:
        """From the scores of each model, of any protocols and seeds.

        A model that was measured in several ways by one protocol (other recipes, lengths, or steps of its
        run) has a row for each: they are no seeds.
        """
        groups = {column: _grouped(each) for column, each in scores.items()}
        several = {
            kind
            for by_kind in groups.values()
            for kind, group in by_kind.items()
            if len({score.variant for score in group}) > 1
        }
        found: dict[Kind, dict[str, list[Score]]] = {}
        for column, each in scores.items():
            for score in each:
                kind = _kind(score)
                way = _way(score, groups[column][kind], kind in several)
                row = (score.protocol + way, score.data, score.metric)
                found.setdefault(row, {}).setdefault(column, []).append(score)
        columns = tuple(scores)
        return cls(columns, tuple(_row(kind, by_column, columns) for kind, by_column in found.items()))

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """A header, and a line of text for each protocol; the best in ** where the interval allows."""
        header = ("protocol", "metric, %", "train", "test", "seeds", *self.columns)
        lines = []
        for row in self.rows:
            cells = ("" if c is None else f"**{c.tell()}**" if c.best else c.tell() for c in row.cells)
            sizes = (f"{row.n_train:,}" if row.n_train else "", f"{row.n_test:,}", str(row.seeds))
            lines.append((row.protocol, row.metric, *sizes, *cells))
        return header, lines

    def gains(self) -> list[str]:
        """Every model against the first one: a sentence for each protocol with paired seeds."""
        said = []
        for row in self.rows:
            for i, column in enumerate(self.columns[1:], start=1):
                gain = row.gain(i, over=0)
                if gain is not None and gain.half is not None:
                    clear = "" if gain.clear else ", not told apart from none"
                    points = f"{gain.tell(100, sign=True)} points ({seeds_of(gain.n)}{clear})"
                    said.append(f"{row.protocol}: {column} minus {self.columns[0]} {points}.")
        return said

    def to_json(self) -> dict[str, Any]:
        """All numbers, in plain lists."""
        rows = []
        for row in self.rows:
            cells = {
                column: None
                if cell is None
                else {"values": list(cell.values), "interval": cell.interval, "best": cell.best}
                for column, cell in zip(self.columns, row.cells, strict=True)
            }
            about = {"protocol": row.protocol, "data": row.data, "metric": row.metric}
            rows.append({**about, "n_train": row.n_train, "n_test": row.n_test, "models": cells})
        return {"columns": list(self.columns), "rows": rows}


Kind = tuple[str, str, str]
"""Protocol, data and metric."""


def _kind(score: Score) -> Kind:
    return score.protocol, score.data, score.metric


def _grouped(scores: Sequence[Score]) -> dict[Kind, list[Score]]:
    groups: dict[Kind, list[Score]] = {}
    for score in scores:
        groups.setdefault(_kind(score), []).append(score)
    return groups


def _way(score: Score, group: Sequence[Score], several: bool) -> str:
    """What tells a score from others of its model and kind that are no seeds, " (finetune-s, 5 epochs)"; ""
    where seeds alone differ."""
    told = [score.variant] if several else []
    # Runs of several seeds may have stopped at different steps.
    if len({each.model for each in group}) == 1 and len({each.step for each in group}) > 1:
        told.append(f"step {score.step}")
    return f" ({', '.join(told)})" if told else ""


def _row(kind: Kind, by_column: Mapping[str, list[Score]], columns: Sequence[str]) -> ComparisonRow:
    protocol, data, metric = kind
    cells = [_cell(by_column[name]) if name in by_column else None for name in columns]
    first = next(iter(by_column.values()))[0]
    row = ComparisonRow(protocol, data, metric, first.n_train, first.n_test, tuple(cells))
    best = _best(row)
    marked = tuple(
        cell if cell is None or i != best else replace(cell, best=True) for i, cell in enumerate(cells)
    )
    return ComparisonRow(protocol, data, metric, first.n_train, first.n_test, marked)


def _cell(scores: Sequence[Score]) -> Cell:
    ordered = sorted(scores, key=lambda score: score.seed)
    values = tuple(score.value for score in ordered)
    seeds = tuple(score.seed for score in ordered)
    return Cell(estimate(values), ordered[0].interval if len(ordered) == 1 else None, values, seeds)


def _best(row: ComparisonRow) -> int | None:
    """The column that is better than every other one by more than an interval; None where none is."""
    sign = -1 if any(word in row.metric for word in LOWER_IS_BETTER) else 1
    there = [i for i, cell in enumerate(row.cells) if cell is not None]
    if len(there) < 2:
        return None

    def mean(i: int) -> float:
        cell = row.cells[i]
        assert cell is not None
        return sign * cell.over_seeds.mean

    best = max(there, key=mean)
    return best if all(_apart(row, best, other, sign) for other in there if other != best) else None


def _apart(row: ComparisonRow, best: int, other: int, sign: int) -> bool:
    """Whether the paired difference leaves out zero; of single seeds, whether the intervals are disjoint."""
    gain = row.gain(best, other)
    if gain is not None and gain.half is not None:
        return gain.clear and sign * gain.mean > 0
    ours, theirs = row.cells[best], row.cells[other]
    assert ours is not None
    assert theirs is not None
    if ours.interval is None or theirs.interval is None:
        return False
    if sign > 0:
        return ours.interval[0] > theirs.interval[1]
    return ours.interval[1] < theirs.interval[0]
