"""Results of probes as the report arranges them: grouped by setting, seeds averaged, runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamina.core.intervals import SHARE, SHARES_APART, difference, estimate, seeds_of
from lamina.core.text import NO_VALUE
from lamina.evaluate.results import Row, encoder_name
from lamina.evaluate.score import Score
from lamina.report.colours import MUTED, run_colours
from lamina.report.format import count, percent, points
from lamina.report.plots import Bar, BarChart, bar_chart
from lamina.report.read_run import RunData
from lamina.report.shown_scores import chosen_rows, rank, title_of

Seeds = Sequence[Score]
"""Results of one run that differ in the seed alone."""
Group = tuple[str, str, str, int | None]
"""Protocol, data, settings, and the step where it is not the newest that was evaluated."""


@dataclass(frozen=True)
class Cell:
    """The chosen row of one encoder: its mean over seeds and the interval; of a single seed the row's own."""

    label: str
    top1: float
    low: float
    high: float
    remark: str
    """Features and pool, among how many they were chosen, and the number of seeds where there are several."""


@dataclass(frozen=True)
class ResultView:
    """One protocol with some settings on one data set, over all runs that have it; `columns` holds a cell for
    each run."""

    title: str
    sizes: str
    metric: str
    """What the numbers are, in words."""
    chart: BarChart | None
    columns: Sequence[tuple[str, Sequence[Cell | None]]]
    """By encoder, under its name for readers."""
    gains: Sequence[str]
    shown: Sequence[tuple[str, Score]]


def headline(results: Sequence[Score]) -> Seeds | None:
    """What the page's first lines show: the linear probe where there is one, else kNN; the usual settings
    before others."""
    groups = _groups(results)
    trained = {group: seeds for group, seeds in groups.items() if cell_of(seeds, "trained") is not None}
    return trained[min(trained, key=_order)] if trained else None


def cell_of(seeds: Seeds, encoder: str) -> Cell | None:
    """The chosen rows of an encoder as one cell; None where a seed has none."""
    rows = [row for result in seeds for row in chosen_rows(result) if row.encoder == encoder]
    if not rows or len(rows) < len(seeds):
        return None
    remark = "" if encoder == "pixels" else _which(seeds, rows)
    alike = len({row.label for row in rows}) == 1
    label = rows[0].label if alike else encoder
    if len(rows) == 1:
        return Cell(label, rows[0].top1, *rows[0].interval, remark)
    found = estimate([row.top1 for row in rows], SHARE)
    low, high = found.interval or (found.mean, found.mean)
    return Cell(
        label, found.mean, low, high, ", ".join(filter(None, (remark, f"mean of {seeds_of(len(rows))}")))
    )


def _which(seeds: Seeds, rows: Sequence[Row]) -> str:
    """Features and pool, and among how many they were chosen: an encoder with a fusion has more to choose
    from than one without, which a reader of two runs side by side has to know."""
    which = " or ".join(dict.fromkeys(f"{row.features}, {row.pool}" for row in rows))
    most = max(sum(row.encoder == rows[0].encoder for row in result.rows) for result in seeds)
    return f"{which} (chosen among {most})" if most > 1 else which


def baseline_of(seeds: Seeds) -> Cell | None:
    """The better of the baselines, with which pre-training is compared."""
    names = _baselines(seeds)
    return max((cell for name in names if (cell := cell_of(seeds, name))), key=lambda c: c.top1, default=None)


def result_views(runs: Sequence[RunData]) -> list[ResultView]:
    """Results grouped by protocol, data set and settings; linear probes and the usual settings first."""
    groups: dict[Group, dict[int, Seeds]] = {}
    for i, run in enumerate(runs):
        for group, seeds in _groups(run.results).items():
            groups.setdefault(group, {})[i] = seeds
    return [_view(runs, group, groups[group]) for group in sorted(groups, key=_order)]


def _groups(results: Sequence[Score]) -> dict[Group, list[Score]]:
    newest: dict[tuple[str, str, str], int] = {}
    for result in results:
        kind = (result.protocol, result.data, result.variant)
        newest[kind] = max(newest.get(kind, 0), result.step or 0)
    groups: dict[Group, list[Score]] = {}
    for result in sorted(results, key=lambda each: each.seed):
        kind = (result.protocol, result.data, result.variant)
        earlier = None if (result.step or 0) == newest[kind] else result.step
        groups.setdefault((*kind, earlier), []).append(result)
    return groups


def _order(group: Group) -> tuple[bool, bool, bool, str, str, str, int]:
    protocol, data, variant, earlier = group
    return earlier is not None, protocol != "linear", variant != "", protocol, data, variant, earlier or 0


def _view(runs: Sequence[RunData], group: Group, by_run: Mapping[int, Seeds]) -> ResultView:
    first = next(iter(by_run.values()))[0]
    encoders = {row.encoder for seeds in by_run.values() for result in seeds for row in chosen_rows(result)}
    columns = [
        (encoder_name(name), [cell_of(by_run[i], name) if i in by_run else None for i in range(len(runs))])
        for name in sorted(encoders, key=rank)
    ]
    sizes = (
        (first.n_train, "training images"),
        (first.n_test, "test images"),
        (len(first.classes), "classes"),
    )
    step = "" if group[3] is None else f", step {group[3]}"
    return ResultView(
        title=title_of(first) + step,
        sizes=", ".join([*(f"{count(n)} {text}" for n, text in sizes if n), *_largest(first)]),
        metric=first.metric_name,
        chart=bar_chart(_capitalised(first.metric_name), _bars(runs, by_run)),
        columns=columns,
        gains=[_gain(by_run[i]) if i in by_run else NO_VALUE for i in range(len(runs))],
        shown=[(runs[i].name, result) for i, seeds in by_run.items() for result in seeds],
    )


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _largest(result: Score) -> tuple[str, ...]:
    if result.prevalence is not None:
        return (f"the mean prevalence of the labels is {percent(result.prevalence)}",)
    if result.majority is None:
        return ()
    return (f"the largest class has {percent(result.majority)} of the test images",)


def _bars(runs: Sequence[RunData], by_run: Mapping[int, Seeds]) -> list[Bar]:
    many, bars = len(runs) > 1, []
    colours = run_colours([run.name for run in runs])
    for i, seeds in by_run.items():
        for encoder in ("trained", *_baselines(seeds)):
            cell, trained = cell_of(seeds, encoder), encoder == "trained"
            if cell is None:
                continue
            colour = colours[i] if trained else MUTED
            label = f"{runs[i].name}: {cell.label}" if many else cell.label
            bars.append((not trained, Bar(label, cell.top1, cell.low, cell.high, colour, strong=trained)))
    return [bar for _, bar in sorted(bars, key=lambda item: item[0])]


def _baselines(seeds: Seeds) -> list[str]:
    names = {row.encoder for result in seeds for row in chosen_rows(result)} - {"trained"}
    return sorted(names, key=rank)


def _gain(seeds: Seeds) -> str:
    """The trained encoder minus the better baseline, seed by seed."""
    other = baseline_of(seeds)
    if cell_of(seeds, "trained") is None or other is None:
        return NO_VALUE
    best = next(name for name in _baselines(seeds) if cell_of(seeds, name) == other)
    ours, theirs = ([result.chosen(name).top1 for result in seeds] for name in ("trained", best))
    gain = difference(ours, theirs, SHARES_APART)
    if gain.interval is None:
        return f"{points(gain.mean)} points"
    return f"{points(gain.mean)} points ({points(gain.interval[0])} to {points(gain.interval[1])})"
