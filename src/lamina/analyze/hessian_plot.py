"""The picture of a Hessian analysis: both ends over all mini-batches as distributions, and the density."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.stats import gaussian_kde

from lamina.analyze.curvature.lanczos import Eigenvalue
from lamina.analyze.curvature.mini_batch import BatchCurvature
from lamina.analyze.hessian import HessianResult
from lamina.analyze.output import Summary, cell
from lamina.core.plotting import WIDTH, coloured, figure_text, legend_below, model_lines, tidy

_FEWEST = 5  # values that a smooth curve is drawn of
_SPREAD = 0.005  # of the density's Gaussian, as a share of the axis


def draw(result: HessianResult) -> Figure:
    """A row for each model above, the density below where there is one."""
    rows = 1.3 + 0.75 * len(result.models)
    dense = any(result.density(name) for name in result.models)
    figure = Figure(figsize=(WIDTH, rows + (3.0 if dense else 0.6)), layout="constrained")
    grid = figure.add_gridspec(2 if dense else 1, 1, height_ratios=(rows, 2.4) if dense else None)
    _ends(figure, grid[0], result)
    if dense:
        _density(figure.add_subplot(grid[1]), result)
    l2 = f" + L2 of {result.weight_decay:g}" if result.weight_decay else ""
    counts = " or ".join(f"{n:,}" for n in sorted(set(result.n_parameters.values())))
    figure.suptitle(f"Hessian of the loss{l2}, {result.parameters} parameters ({counts})", fontsize="medium")
    legend_below(figure, _keys(result, dense))
    return figure


def _ends(figure: Figure, place: Any, result: HessianResult) -> None:
    """The largest eigenvalues, and the most negative ones beside them."""
    first = next(iter(result.models.values()))
    top, bottom = len(first[0].top), len(first[0].bottom)
    panels: dict[str, Callable[[BatchCurvature], Sequence[Eigenvalue]]] = {
        f"{top} largest eigenvalues" if top > 1 else "largest eigenvalue": lambda batch: batch.top
    }
    if bottom:
        title = f"{bottom} most negative" if bottom > 1 else "most negative eigenvalue"
        panels[title] = lambda batch: batch.bottom
    widths = (2.2, 1) if bottom else None
    axes = figure.add_subfigure(place).subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for panel, (title, end) in zip(axes, panels.items(), strict=True):
        for row, (_, batches, hue) in enumerate(coloured(result.models)):
            _row(panel, row, [[found.value for found in end(batch)] for batch in batches], hue)
        panel.set_yticks(range(len(result.models)), [""] * len(result.models))
        panel.set_ylim(len(result.models) - 0.55, -0.65)
        panel.xaxis.set_major_locator(MaxNLocator(6 if panel is axes[0] else 4))
        panel.set_title(title, fontsize="medium")
        panel.set_xlabel(_counted(first) if panel is axes[0] else "eigenvalue")
        tidy(panel, grid="x")
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(result.models)), [figure_text(name, 24) for name in result.models])


def _counted(batches: Sequence[BatchCurvature]) -> str:
    sizes = sorted({batch.images for batch in batches})
    of = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    n = len(batches)
    return f"eigenvalue, {n} mini-batch{'es' if n > 1 else ''} of {of} image{'s' if sizes != [1] else ''}"


def _row(panel: Any, row: int, batches: list[list[float]], hue: str) -> None:
    """A model's values: their density above the line, below it a point for each, mini-batches apart."""
    values = np.array([value for batch in batches for value in batch])
    if len(values) >= _FEWEST and np.ptp(values) > 0:
        x = np.linspace(values.min(), values.max(), 300)
        curve = gaussian_kde(values)(x)
        panel.fill_between(x, row, row - 0.5 * curve / curve.max(), color=hue, alpha=0.3, linewidth=0)
    panel.axhline(row, color="0.8", linewidth=0.6)
    aside = np.linspace(0.08, 0.3, len(batches)) if len(batches) > 1 else [0.19]
    for down, batch in zip(aside, batches, strict=True):
        fills = ["none"] * len(batch)
        fills[0] = hue
        panel.scatter(batch, [row + down] * len(batch), s=14, c=fills, edgecolors=hue, linewidths=0.8)
    median = float(np.median(values))
    panel.plot([median, median], [row - 0.5, row + 0.36], color="0.15", linewidth=1.3)


def _density(panel: Any, result: HessianResult) -> None:
    """Share of eigenvalues per unit, down to half of what a single one of one mini-batch shows as."""
    found = {name: density for name in result.models if (density := result.density(name)) is not None}
    nodes = [node for density in found.values() for node in density.nodes]
    low, high = min(nodes), max(nodes)
    width = _SPREAD * (high - low) or 1.0
    x = np.linspace(low - 4 * width, high + 4 * width, 1200)
    single = 1 / (max(result.n_parameters.values()) * width * np.sqrt(2 * np.pi))
    n, peak = len(next(iter(result.models.values()))), 0.0
    floor = single / (2 * n)
    for name, batches, hue in coloured(result.models):
        if name not in found:
            continue
        y = found[name].at(x, width)
        panel.plot(x, np.maximum(y, floor / 10), color=hue, linewidth=1.3)
        peak = max(peak, float(y.max()))
        ends = [np.median([batch.top[0].value for batch in batches])]
        if batches[0].bottom:
            ends.append(np.median([batch.bottom[0].value for batch in batches]))
        panel.plot(ends, [1.5 * floor] * len(ends), "^", color=hue, ms=7, mec="white", zorder=4)
    panel.axhline(single, color="0.5", linestyle=":", linewidth=1)
    panel.set_yscale("log")
    panel.set_ylim(floor, 3 * peak)
    panel.set_ylabel("share of eigenvalues per unit")
    probes = next(iter(found.values())).probes
    panel.set_xlabel(f"eigenvalue, {probes} random vectors in all, spread by a Gaussian of {width:.2g}")
    tidy(panel, grid="both")


def _keys(result: HessianResult, dense: bool) -> list[Line2D]:
    first = next(iter(result.models.values()))[0]
    grey: dict[str, Any] = {"color": "0.3", "linestyle": ""}
    keys = [Line2D([], [], marker="o", ms=5, label="outermost value of each mini-batch", **grey)]
    if max(len(first.top), len(first.bottom)) > 1:
        keys.append(Line2D([], [], marker="o", ms=5, mfc="none", label="other values", **grey))
    keys.append(Line2D([], [], color="0.15", linewidth=1.3, label="median of all points"))
    if dense:
        if len(result.models) > 1:
            keys += model_lines(result.models)
        keys.append(Line2D([], [], marker="^", ms=7, label="median of the outermost values", **grey))
        keys.append(Line2D([], [], color="0.5", linestyle=":", label="height of a single eigenvalue"))
    return keys


def summarize(result: HessianResult) -> Summary:
    """Medians over mini-batches, the largest relative residual, and the products of a mini-batch."""
    rows = []
    for name, batches in result.models.items():
        maxima = result.maxima(name)
        values = [value for batch in batches for value in (*batch.top, *batch.bottom)]
        worst = max(value.residual / max(abs(value.value), 1e-12) for value in values)
        row = {
            "model": name,
            "mini-batches": str(len(batches)),
            "largest eigenvalue": _median(maxima),
            "minimum": f"{min(maxima):.4g}",
            "maximum": f"{max(maxima):.4g}",
            "most negative": _median([batch.bottom[0].value for batch in batches if batch.bottom]),
            "largest residual": f"{100 * worst:.2g} %",
            "products": f"{np.median([batch.products for batch in batches]):.0f}",
        }
        if batches[0].magnitude:
            by_power = [batch.magnitude[0].value for batch in batches if batch.magnitude]
            row["first by power iteration"] = _median(by_power)
        if batches[0].trace:
            row["trace"] = _median([batch.trace.value for batch in batches if batch.trace])
        rows.append(row)
    count = ", ".join(f"{name} {n:,}" for name, n in result.n_parameters.items())
    notes = [
        "values are medians over mini-batches; minimum and maximum are those of the largest eigenvalue",
        f"{result.parameters} parameters: {count}",
    ]
    return Summary.of(rows, *notes, *_unconverged(result))


def _median(values: Sequence[float]) -> str:
    return cell(float(np.median(values)) if values else None, ".4g")


def _unconverged(result: HessianResult) -> Iterator[str]:
    for name, batches in result.models.items():
        values = [value for batch in batches for value in (*batch.top, *batch.bottom)]
        if missed := sum(not value.converged for value in values):
            yield f"{name}: {missed} of {len(values)} values did not converge; the JSON has their residuals"
