"""Scores of several models in one table: protocols as rows, the best in bold only where it is clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lamina.core.intervals import SHARE, SHARES_APART, Estimate, difference, estimate, seeds_of
from lamina.evaluate.confusion import MAJORITY
from lamina.evaluate.score import Score

LOWER_IS_BETTER = ("error", "mCE")
"""Parts of the names of metrics of which less is better."""


@dataclass(frozen=True)
class Cell:
    """One model by one protocol."""

    over_seeds: Estimate
    """Mean over seeds, and its 95 % interval (Student's t) where there are two or more."""
    interval: tuple[float, float] | None
    """For a single seed, the interval of its score: over test images, or over draws of labels."""
    values: tuple[float, ...]
    """By seed."""
    seeds: tuple[int, ...]
    variant: str
    """`Score.variant` of all of them."""
    best: bool = False
    """Whether it is better than every other model by more than its interval."""

    def tell(self) -> str:
        """In percent: "71.3 ± 0.8" over seeds where both sides are alike, or "71.3 (69.0 to 73.5)"."""
        if self.over_seeds.interval is not None or self.interval is None:
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
    majority: float | None = None
    """Share of the largest class among the test images; None of what does not classify images."""

    @property
    def alike(self) -> bool:
        """Whether all models were measured in one variant; else the cause of a difference is not known."""
        return len({cell.variant for cell in self.cells if cell is not None}) == 1

    @property
    def seeds(self) -> int:
        """The smallest number of seeds of a model."""
        return min(cell.over_seeds.n for cell in self.cells if cell is not None)

    def gain(self, column: int, over: int) -> Estimate | None:
        """The difference to another model, seed by seed; None where seeds are not paired, or ways differ."""
        ours, theirs = self.cells[column], self.cells[over]
        if ours is None or theirs is None or (ours.seeds, ours.variant) != (theirs.seeds, theirs.variant):
            return None
        bounds = SHARES_APART if _shares(ours.values + theirs.values) else None
        return difference(ours.values, theirs.values, bounds)


@dataclass(frozen=True)
class Comparison:
    """Models by name, and what each protocol says of them."""

    columns: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]

    @classmethod
    def of(cls, scores: Mapping[str, Sequence[Score]]) -> Comparison:
        """From the scores of each model, of any protocols and seeds.

        What was measured in several ways by one protocol (`Score.variant`), or of several steps of one run,
        has a row for each, named after them: they are no seeds. Models that were measured once each, each in
        another variant, share a row, whose cells say the variant and of which none is the best.
        """
        named = _several(scores) | _alike(scores)
        found: dict[Kind, dict[str, list[Score]]] = {}
        for column, each in scores.items():
            newest = _newest(each)
            for score in each:
                kind = _kind(score)
                details = [score.variant] if kind in named and score.variant else []
                details += [f"step {score.step}"] if score.step != newest[score.model, *kind] else []
                row = (f"{score.protocol} ({', '.join(details)})" if details else score.protocol, *kind[1:])
                found.setdefault(row, {}).setdefault(column, []).append(score)
        columns = tuple(scores)
        return cls(columns, tuple(_row(kind, by_column, columns) for kind, by_column in found.items()))

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """A header, and a line of text for each protocol; the best in ** where the interval allows."""
        header = ("protocol", "metric, %", "train", "test", "largest class, %", "seeds", *self.columns)
        lines = []
        for row in self.rows:
            cells = ("" if cell is None else _shown(cell, row.alike) for cell in row.cells)
            sizes = (f"{row.n_train:,}" if row.n_train else "", f"{row.n_test:,}")
            largest = "" if row.majority is None else f"{100 * row.majority:.1f}"
            lines.append((row.protocol, row.metric, *sizes, largest, str(row.seeds), *cells))
        return header, lines

    def gains(self) -> list[str]:
        """Every model against the first one: a sentence for each protocol with paired seeds."""
        sentences = []
        for row in self.rows:
            for i, column in enumerate(self.columns[1:], start=1):
                gain = row.gain(i, over=0)
                if gain is not None and gain.interval is not None:
                    clear = "" if gain.clear else ", not told apart from none"
                    points = f"{gain.tell(100, sign=True)} points ({seeds_of(gain.n)}{clear})"
                    sentences.append(f"{row.protocol}: {column} minus {self.columns[0]} {points}.")
        return sentences

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
            rows.append(
                {
                    **about,
                    "n_train": row.n_train,
                    "n_test": row.n_test,
                    "majority": row.majority,
                    "models": cells,
                }
            )
        return {"columns": list(self.columns), "rows": rows}


Kind = tuple[str, str, str]
"""Protocol, data and metric."""


def _kind(score: Score) -> Kind:
    return score.protocol, score.data, score.metric


def _several(scores: Mapping[str, Sequence[Score]]) -> set[Kind]:
    """The kinds of score that some model has in more than one variant."""
    ways: dict[tuple[str, Kind], set[str]] = {}
    for column, each in scores.items():
        for score in each:
            ways.setdefault((column, _kind(score)), set()).add(score.variant)
    return {kind for (_, kind), found in ways.items() if len(found) > 1}


def _alike(scores: Mapping[str, Sequence[Score]]) -> set[Kind]:
    """The kinds of score that all models have in one and the same variant."""
    ways: dict[Kind, set[str]] = {}
    for score in (score for each in scores.values() for score in each):
        ways.setdefault(_kind(score), set()).add(score.variant)
    return {kind for kind, found in ways.items() if len(found) == 1}


def _newest(scores: Sequence[Score]) -> dict[tuple[str, str, str, str], int | None]:
    """The last step that was measured, by run and kind; runs of several seeds have steps of their own."""
    found: dict[tuple[str, str, str, str], int | None] = {}
    for score in scores:
        key = (score.model, *_kind(score))
        found[key] = max(found.get(key) or 0, score.step) if score.step is not None else None
    return found


def _shown(cell: Cell, alike: bool) -> str:
    text = f"**{cell.tell()}**" if cell.best else cell.tell()
    return text if alike or not cell.variant else f"{text} [{cell.variant}]"


def _row(kind: Kind, by_column: Mapping[str, list[Score]], columns: Sequence[str]) -> ComparisonRow:
    protocol, data, metric = kind
    cells = [_cell(by_column[name]) if name in by_column else None for name in columns]
    first = next(iter(by_column.values()))[0]
    majority = first.more.get(MAJORITY)
    row = ComparisonRow(protocol, data, metric, first.n_train, first.n_test, tuple(cells), majority)
    best = _best(row) if row.alike else None
    marked = (cell if cell is None or i != best else replace(cell, best=True) for i, cell in enumerate(cells))
    return replace(row, cells=tuple(marked))


def _cell(scores: Sequence[Score]) -> Cell:
    """The cell of one model; of a seed with two scores of one variant the later one counts."""
    by_seed = {score.seed: score for score in scores}
    ordered = [by_seed[seed] for seed in sorted(by_seed)]
    values = tuple(score.value for score in ordered)
    alone = ordered[0].interval if len(ordered) == 1 else None
    over_seeds = estimate(values, SHARE if _shares(values) else None)
    return Cell(over_seeds, alone, values, tuple(sorted(by_seed)), ordered[0].variant)


def _shares(values: Sequence[float]) -> bool:
    """Whether they can be shares of something; an mCE may be more than 1."""
    return all(0 <= value <= 1 for value in values)


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
    if gain is not None and gain.interval is not None:
        return gain.clear and sign * gain.mean > 0
    ours, theirs = row.cells[best], row.cells[other]
    assert ours is not None
    assert theirs is not None
    if ours.interval is None or theirs.interval is None:
        return False
    if sign > 0:
        return ours.interval[0] > theirs.interval[1]
    return ours.interval[1] < theirs.interval[0]
