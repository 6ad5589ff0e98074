"""The picture of a frequency analysis: curves of each depth, the highest frequency by depth, two bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lamina.analyze.frequency import FrequencyResult, ModelFrequency, Stage
from lamina.analyze.output import Summary, cell
from lamina.core.plotting import WIDTH, coloured, depths, figure_text, legend_below, model_lines
from lamina.core.text import NO_VALUE

STREAM_NAMES = {"unnormed": "block output", "last": "after the\nfinal norm", "fused": "fused"}
MARKS = {"input": "D", "attention": "o", "mlp": "s", "block": "s"}
PART_NAMES = {
    "input": "embedded input",
    "attention": "after attention",
    "mlp": "after MLP",
    "block": "after block",
}
LOW, HIGH = 0.45, 1.0
_COLUMNS = 3


def draw(result: FrequencyResult) -> Figure:
    """Curves of each model above; the highest frequency by depth and the last layer's bands below."""
    models = result.models
    lines = -(-len(models) // _COLUMNS)
    heights = (2.6 * lines, 3.6)
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=heights)
    _all_curves(rows[0], models, lines)
    below = rows[1].subgridspec(1, 2)
    _by_depth(figure.add_subplot(below[0]), models, result.direction)
    _bands(figure.add_subplot(below[1]), models)
    legend_below(figure, _keys(models))
    return figure


def _place(stage: Stage, depth: int) -> float:
    return (stage.layer + (0.5 if stage.part == "attention" else 1.0)) / depth


def _all_curves(place: SubplotSpec, models: Mapping[str, ModelFrequency], lines: int) -> None:
    columns = min(_COLUMNS, len(models))
    panels = place.subgridspec(lines, columns).subplots(squeeze=False, sharey=True)
    for panel in panels.flat[len(models) :]:
        panel.set_visible(False)
    for panel, (name, model, hue) in zip(panels.flat, coloured(models), strict=False):
        _curves(panel, model)
        title = f"{figure_text(name, 70 // columns)} ({model.n_images} images)"
        panel.set_title(title, fontsize="small", color=hue)
    for panel in panels[:, 0]:
        panel.set_ylabel("log amplitude minus DC")
    scale = ScalarMappable(cmap=depths())
    panel.figure.colorbar(scale, ax=panels, pad=0.02, label="depth (0: input, 1: last)")


def _curves(panel: Axes, model: ModelFrequency) -> None:
    colours = depths()
    for stage in model.stages:
        style, hue = "--" if stage.part == "attention" else "-", colours(_place(stage, model.depth))
        panel.plot(model.frequencies, stage.relative, style, color=hue, lw=1.2)
    panel.set_xlabel("frequency (π rad per patch)")


def _by_depth(axes: Axes, models: Mapping[str, ModelFrequency], direction: str) -> None:
    for _, model, hue in coloured(models):
        x = [_place(stage, model.depth) for stage in model.stages]
        axes.plot(x, [stage.high for stage in model.stages], color=hue, lw=1.4)
        for part, mark in MARKS.items():
            those = [stage for stage in model.stages if stage.part == part]
            at = [_place(stage, model.depth) for stage in those]
            axes.plot(at, [stage.high for stage in those], mark, color=hue, ms=4)
    axes.set_xlabel("depth as a share of the blocks")
    axes.set_ylabel(f"log amplitude at the highest\n{direction} frequency minus DC")


def _bands(axes: Axes, models: Mapping[str, ModelFrequency]) -> None:
    """Low and high band of the last layer; the high band's share above each pair of bars."""
    kinds = [kind for kind in STREAM_NAMES if any(kind in model.bands for model in models.values())]
    n = len(models)
    for i, (_, model, hue) in enumerate(coloured(models)):
        for j, kind in enumerate(kinds):
            if kind not in model.bands:
                continue
            bands = model.bands[kind]
            middle, width = j + (i - (n - 1) / 2) * 0.84 / n, 0.36 / n
            low = bands.low or 0.0
            axes.bar(middle - width / 2, low, width, color=hue, alpha=LOW)
            axes.bar(middle + width / 2, bands.high, width, color=hue, alpha=HIGH)
            look: dict[str, Any] = {"ha": "center", "fontsize": "small", "rotation": 90 if n > 2 else 0}
            place = (middle, max(low, bands.high))
            share = f"{100 * bands.share_high:.0f} %"
            axes.annotate(share, place, (0, 2), textcoords="offset points", va="bottom", **look)
    axes.margins(y=0.2 if n > 2 else 0.12)
    axes.set_xticks(range(len(kinds)), [STREAM_NAMES[kind] for kind in kinds])
    axes.set_ylabel("mean amplitude per coefficient")
    axes.set_title("last layer; numbers: share of the high band", fontsize="small")


def _keys(models: Mapping[str, ModelFrequency]) -> list[Artist]:
    keys: list[Artist] = [*model_lines(models)]
    parts = {stage.part for model in models.values() for stage in model.stages}
    for part, mark in MARKS.items():
        if part in parts:
            look: dict[str, Any] = {"linestyle": {"attention": "--", "input": ""}.get(part, "-"), "ms": 4}
            keys.append(Line2D([], [], color="0.3", marker=mark, label=PART_NAMES[part], **look))
    for alpha, band in ((LOW, "|ω| < π/2"), (HIGH, "|ω| ≥ π/2")):
        keys.append(Patch(color="0.3", alpha=alpha, linewidth=0, label=f"band {band}"))
    return keys


def summarize(result: FrequencyResult) -> Summary:
    """The highest frequency at the input and after the last block, and the last layer's high band."""
    rows = []
    for name, model in result.models.items():
        shares = {kind: cell(bands.share_high, ".1f", 100.0, " %") for kind, bands in model.bands.items()}
        rows.append(
            {
                "model": name,
                "images": str(model.n_images),
                "grid": f"{model.grid[0]} x {model.grid[1]}",
                "log amplitude: input": f"{model.stages[0].high:.2f}",
                "log amplitude: last block": f"{model.stages[-1].high:.2f}",
                "high band: last block": shares["unnormed"],
                "high band: after the norm": shares.get("last", NO_VALUE),
                "high band: fused": shares.get("fused", NO_VALUE),
            }
        )
    highest = f"log amplitude: at the highest {result.direction} frequency, minus that at frequency 0 (DC)"
    high = "high band: share of the amplitude at frequencies of π/2 and above, in the last layer"
    return Summary.of(rows, highest, high)
