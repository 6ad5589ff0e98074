"""The picture of a frequency analysis: curves of each depth, the highest frequency by depth, two bands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lamina.analyze.style import colour

if TYPE_CHECKING:
    from lamina.analyze.frequency import ModelFrequency, Stage

KINDS = {"unnormed": "block output", "last": "after the\nfinal norm", "fused": "fused"}
MARKS = {"input": "D", "attention": "o", "mlp": "s", "block": "s"}


def frequency_figure(models: Mapping[str, ModelFrequency], direction: str) -> Figure:
    """Curves of each model above; the highest frequency by depth and the last layer's bands below."""
    n = len(models)
    figure = Figure(figsize=(max(10.0, 3.4 * n), 6.8), layout="constrained")
    rows = figure.add_gridspec(2, 1)
    above, below = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    panels = above.subplots(1, n, squeeze=False, sharey=True)[0]
    for panel, (name, model) in zip(panels, models.items(), strict=True):
        _curves(panel, name, model)
    panels[0].set_ylabel("log amplitude minus DC")
    scale = matplotlib.cm.ScalarMappable(cmap="viridis")
    above.colorbar(scale, ax=list(panels), label="depth (0: input, 1: last)")
    by_depth, bands = below.subplots(1, 2)
    _by_depth(by_depth, models, direction)
    _bands(bands, models)
    return figure


def _place(stage: Stage, depth: int) -> float:
    return (stage.layer + (0.5 if stage.part == "attention" else 1.0)) / depth


def _curves(panel: Axes, name: str, model: ModelFrequency) -> None:
    depths = matplotlib.colormaps["viridis"]
    for stage in model.stages:
        style = "--" if stage.part == "attention" else "-"
        hue = depths(_place(stage, model.depth))
        panel.plot(model.frequencies, stage.relative, style, color=hue, lw=1.2)
    panel.set_title(f"{name} ({model.n_images} images)", fontsize="medium")
    panel.set_xlabel("frequency (π rad per patch)")


def _by_depth(axes: Axes, models: Mapping[str, ModelFrequency], direction: str) -> None:
    for i, (name, model) in enumerate(models.items()):
        x = [_place(stage, model.depth) for stage in model.stages]
        axes.plot(x, [stage.high for stage in model.stages], color=colour(i), label=name)
        for part, mark in MARKS.items():
            those = [stage for stage in model.stages if stage.part == part]
            at = [_place(stage, model.depth) for stage in those]
            axes.plot(at, [stage.high for stage in those], mark, color=colour(i), ms=4)
    parts = {stage.part for model in models.values() for stage in model.stages}
    legend = axes.legend(frameon=False, fontsize="small")
    if "attention" in parts:
        axes.set_title("circle: after attention, square: after MLP, diamond: input", fontsize="small")
    legend.set_visible(len(models) > 1)
    axes.set_xlabel("depth, as a share of the blocks")
    axes.set_ylabel(f"log amplitude at the highest\n{direction} frequency minus DC")


def _bands(axes: Axes, models: Mapping[str, ModelFrequency]) -> None:
    """Low and high band of the last layer; the high band's share above each pair of bars."""
    kinds = [kind for kind in KINDS if any(kind in model.bands for model in models.values())]
    n = len(models)
    for i, model in enumerate(models.values()):
        for j, kind in enumerate(kinds):
            if kind not in model.bands:
                continue
            bands = model.bands[kind]
            middle, width = j + (i - (n - 1) / 2) * 0.84 / n, 0.36 / n
            low = bands.low or 0.0
            axes.bar(middle - width / 2, low, width, color=colour(i), alpha=0.45)
            axes.bar(middle + width / 2, bands.high, width, color=colour(i))
            top = max(low, bands.high)
            said = f"{100 * bands.share_high:.0f} %"
            axes.annotate(said, (middle, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.margins(y=0.12)
    axes.set_xticks(range(len(kinds)), [KINDS[kind] for kind in kinds])
    axes.set_ylabel("mean amplitude per coefficient")
    axes.set_title(
        "last layer: |ω| < π/2 pale, ≥ π/2 full; above: how much of it all is high", fontsize="small"
    )
