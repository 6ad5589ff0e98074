"""The report's content, run by run: the numbers at its head, the curves, the results. Templates draw it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.core.text import NO_VALUE
from lamina.report.colours import ACCENT, MUTED, depth_colours, run_colours
from lamina.report.format import count, number, percent, points, setting
from lamina.report.plots import LineChart, Series, line_chart
from lamina.report.read_run import RunData
from lamina.report.result_views import Cell, baseline_of, cell_of, headline
from lamina.report.shown_scores import PROTOCOLS

CURVES = (
    ("loss", "Loss", "", False),
    ("lr", "Learning rate", "", True),
    ("grad_norm", "Gradient norm", "", True),
    ("rankme", "RankMe", "of fixed images", False),
    ("knn_top1", "kNN top-1", "leave-one-out", False),
)

BIASES = (
    ("first_half", "Mass on the first half", "of the blocks"),
    ("centre", "Centre of mass", "in depth, 0 to 1"),
)


@dataclass(frozen=True)
class Fact:
    """One number at the head of the page, with a short remark."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class FusionView:
    """The charts of one run's fusion, and how far its logits could have moved."""

    name: str
    pooling: str
    charts: Sequence[LineChart | None]
    reach: str
    has_bias: bool
    """Whether the run logged how its weights are distributed over depth."""


def facts(run: RunData) -> list[Fact]:
    """Steps, images, loss and the best probe: the same four for every run."""
    return [_steps(run), _images(run), _loss(run), _probe(run)]


def _steps(run: RunData) -> Fact:
    if not run.metrics:
        return Fact("Steps", NO_VALUE, "nothing logged yet")
    last = run.metrics[-1]
    total, epoch = run.setting("train.max_steps"), last.get("epoch")
    parts = [f"of {count(int(total))}"] if isinstance(total, int) else []
    if isinstance(epoch, int | float):
        epochs = run.setting("train.epochs") if not parts else None
        parts.append(f"epoch {number(epoch)}" + (f" of {number(epochs)}" if epochs else ""))
    return Fact("Steps", count(int(last["step"])), ", ".join(parts))


def _images(run: RunData) -> Fact:
    batch_size = run.setting("train.batch_size")
    if not run.metrics or not isinstance(batch_size, int):
        return Fact("Images seen", NO_VALUE)
    last = run.metrics[-1]
    speed = images_per_second(run.metrics, batch_size)
    clock = "" if speed is None else f", {number(speed)} a second on average"
    return Fact("Images seen", count(int(last["step"]) * batch_size), f"{count(batch_size)} a step{clock}")


def images_per_second(metrics: Sequence[Mapping[str, Any]], batch_size: int) -> float | None:
    """Images over the time that they took, of all logged intervals; each row has the speed of its own."""
    images, seconds, before = 0.0, 0.0, 0
    for row in metrics:
        step, speed = int(row["step"]), row.get("images_per_second")
        if isinstance(speed, int | float) and math.isfinite(speed) and speed > 0:
            images += (step - before) * batch_size
            seconds += (step - before) * batch_size / speed
        before = step
    return images / seconds if seconds else None


def _loss(run: RunData) -> Fact:
    steps, values = run.curve("loss")
    if not values:
        return Fact("Loss", NO_VALUE)
    return Fact("Loss", number(values[-1]), f"from {number(values[0])} at step {count(int(steps[0]))}")


def _probe(run: RunData) -> Fact:
    seeds = headline(run.results)
    trained = None if seeds is None else cell_of(seeds, "trained")
    if seeds is None or trained is None:
        return Fact("Best probe", NO_VALUE, "not evaluated yet")
    other = baseline_of(seeds)
    metric = seeds[0].metric.replace("top1", "top-1")
    label = f"{PROTOCOLS.get(seeds[0].protocol, seeds[0].protocol)}, {metric}"
    return Fact(label, percent(trained.top1), "" if other is None else _against(trained.top1, other))


def _against(top1: float, other: Cell) -> str:
    """The difference to the better baseline, in words."""
    baseline = f"{other.label} ({percent(other.top1)})"
    if points(top1 - other.top1) == points(0.0):
        return f"equal to {baseline}"
    return (
        f"{points(abs(top1 - other.top1))[1:]} points {'over' if top1 > other.top1 else 'under'} {baseline}"
    )


def progress(run: RunData) -> float | None:
    """The share of the run that is done, in [0, 1]; None where it is not known."""
    if not run.metrics:
        return None
    last, total = run.metrics[-1], run.setting("train.max_steps")
    done = last["step"]
    if not isinstance(total, int | float):
        total, done = run.setting("train.epochs"), last.get("epoch")
    if not isinstance(total, int | float) or not isinstance(done, int | float) or total <= 0:
        return None
    return round(min(1.0, max(0.0, done / total)), 3)


def training_charts(runs: Sequence[RunData]) -> list[LineChart]:
    """Loss, learning rate, gradient norm, RankMe and kNN, all runs in each; only what was logged."""
    many, colours = len(runs) > 1, run_colours([run.name for run in runs])
    charts = []
    for key, title, unit, from_zero in CURVES:
        series = [
            Series(run.name if many else title, *run.curve(key), colours[i], strong=not many)
            for i, run in enumerate(runs)
        ]
        charts.append(line_chart(title, series, "step", unit, from_zero, "none" if many else "value"))
    return [chart for chart in charts if chart]


def fusion_views(runs: Sequence[RunData]) -> list[FusionView]:
    """For each run with a fusion: its taps' weights and norm shares, their bias, the sum of rates."""
    return [_fusion(run) for run in runs if run.curves("fusion_weights")[1] or run.curves("fusion_shares")[1]]


def _fusion(run: RunData) -> FusionView:
    charts = []
    for key, title in (("fusion_weights", "Weights"), ("fusion_shares", "Norm shares")):
        steps, taps = run.curves(key)
        names, colours = tap_names(run, len(taps)), depth_colours(len(taps))
        series = [
            Series(name, steps, values, colour, strong=i == len(taps) - 1)
            for i, (name, values, colour) in enumerate(zip(names, taps, colours, strict=True))
        ]
        charts.append(line_chart(title, series, "step", "of each block", from_zero=True, label="name"))
    biases = [_bias(run, *bias) for bias in BIASES]
    charts += biases
    pooling = "attention" if run.setting("fusion.pooling") == "attention" else "average"
    if pooling == "attention":  # no logits, so nothing that the sum of learning rates would bound
        return FusionView(run.name, pooling, charts, "", any(biases))
    steps, sums = run.curve("lr_sum")
    total = [Series("sum of learning rates", steps, sums, ACCENT, strong=True)]
    charts.append(line_chart("Sum of learning rates", total, "step", "", from_zero=True, label="value"))
    return FusionView(run.name, pooling, charts, _reach(run, sums), any(biases))


def _bias(run: RunData, name: str, title: str, unit: str) -> LineChart | None:
    """The chart of one number of which depth the fusion favours, by weight and by norm share."""
    series = [
        Series(what, *run.curve(f"bias_{what}_{name}"), colour, strong=what == "weight")
        for what, colour in (("weight", ACCENT), ("share", MUTED))
    ]
    return line_chart(title, series, "step", unit, label="name")


def _reach(run: RunData, sums: Sequence[float]) -> str:
    """How far a logit can have moved: the sum of learning rates times the logits' own scale."""
    if not sums or not math.isfinite(sums[-1]):
        return ""
    scale = run.setting("fusion.logit_lr_scale")
    if not isinstance(scale, int | float):
        scale = 1.0
    reach = sums[-1] * scale
    consequence = (
        "too little to take the weights far from equal"
        if reach < 0.1
        else "and a difference of 1 between two logits makes one weight 2.7 times the other"
    )
    return (
        f"The learning rates add up to {number(sums[-1])} so far. Multiplied by logit_lr_scale "
        f"{number(scale)}, they bound the change of a logit to about {number(reach)}, {consequence}."
    )


def tap_names(run: RunData, n: int) -> list[str]:
    """The block of each tap, from the recipe; "tap 1" and so on where it does not say."""
    layers = run.setting("fusion.layers")
    if not isinstance(layers, list) or len(layers) != n:
        return [f"tap {i + 1}" for i in range(n)]
    return ["input" if layer == -1 else f"block {layer}" for layer in layers]


def differences(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """The recipe fields in which the runs differ, with each run's value; a field that is absent is a dash."""
    names = sorted(dict.fromkeys(name for run in runs for name in run.recipe))
    absent = object()
    rows = []
    for name in names:
        values = [run.recipe.get(name, absent) for run in runs]
        if any(type(v) is not type(values[0]) or v != values[0] for v in values[1:]):
            rows.append((name, [NO_VALUE if v is absent else setting(v) for v in values]))
    return rows


def fairness(rows: Sequence[tuple[str, list[str]]]) -> str:
    """Whether the differing fields make the comparison a fair one, as a sentence."""
    if rows and all(name == "fusion" or name.startswith("fusion.") for name, _ in rows):
        return "The recipes differ in the fusion and in nothing else: a fair pair."
    plural = "s" if len(rows) != 1 else ""
    return f"The recipes differ in {len(rows)} field{plural}; all other fields are equal."
