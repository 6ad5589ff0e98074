"""The picture of an attention analysis: a dot for each head, a line for their mean, by depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.analyze.attention import AttentionResult, ModelAttention
from lamina.analyze.output import Summary
from lamina.core.plotting import WIDTH, depth_ticks, figure_text, hues, legend_below, tidy

_LABELS = {
    "distance": "mean attention distance (px)",
    "entropy": "entropy of attention (nats)",
    "prefix_mass": "attention to prefix tokens (%)",
}


def draw(result: AttentionResult) -> Figure:
    """Distance, entropy and, where a model has class tokens or registers, what these take."""
    prefixed = any(model.n_prefix for model in result.models.values())
    wanted = list(_LABELS) if prefixed else list(_LABELS)[:2]
    figure = Figure(figsize=(WIDTH, 3.2 + 0.2 * len(result.models)), layout="constrained")
    panels = figure.subplots(1, len(wanted), squeeze=False)[0]
    depths = {len(model.layers) for model in result.models.values()}
    alike = len(depths) == 1
    for panel, number in zip(panels, wanted, strict=True):
        for i, (model, hue) in enumerate(zip(result.models.values(), hues(result.models), strict=True)):
            _heads(panel, model, number, i, len(result.models), alike, hue)
        _axes(panel, next(iter(depths)) if alike else None)
        panel.set_ylabel(_LABELS[number])
    legend_below(figure, _keys(result))
    return figure


def _heads(panel: Any, model: ModelAttention, number: str, i: int, n: int, alike: bool, hue: str) -> None:
    scale = 100.0 if number == "prefix_mass" else 1.0
    depth = len(model.layers)
    x = [float(layer.layer) if alike else (layer.layer + 1) / depth for layer in model.layers]
    values = [[scale * value for value in getattr(layer, number)] for layer in model.layers]
    aside = (i - (n - 1) / 2) * (0.18 if alike else 0.18 / depth)  # models' dots beside each other
    for at, heads in zip(x, values, strict=True):
        panel.scatter([at + aside] * len(heads), heads, s=9, color=hue, alpha=0.45, linewidths=0)
    panel.plot(x, [sum(heads) / len(heads) for heads in values], color=hue, linewidth=1.6)
    uniform = {
        "distance": model.uniform_distance,
        "entropy": model.uniform_entropy,
        "prefix_mass": 100 * model.n_prefix / (model.n_prefix + model.grid[0] * model.grid[1]),
    }
    panel.axhline(uniform[number], color=hue, linestyle=(2 * i, (1, 3)), linewidth=1.3)


def _axes(panel: Any, depth: int | None) -> None:
    ticks, texts, label = depth_ticks(depth, embedded=False)
    panel.set_xticks(ticks, texts)
    panel.set_xlabel(label)
    low, high = panel.get_ylim()
    if low < 0.5 * high:  # else all is so near to uniform that nothing would be seen
        panel.set_ylim(bottom=0)
    tidy(panel)


def _keys(result: AttentionResult) -> list[Line2D]:
    keys = []
    for i, (name, model) in enumerate(result.models.items()):
        rows, columns = model.image_size
        label = f"{figure_text(name, 40)} ({model.n_images} images of {rows} x {columns} px)"
        keys.append(Line2D([], [], color=hues(result.models)[i], linewidth=3, label=label))
    keys.append(Line2D([], [], color="0.3", marker="o", ms=4, label="one head (line: mean over heads)"))
    keys.append(Line2D([], [], color="0.3", linestyle=":", label="uniform attention"))
    return keys


def summarize(result: AttentionResult) -> Summary:
    """First and last block, means over heads."""
    header = (
        "model",
        "images",
        "distance: first block",
        "last block",
        "uniform attention",
        "entropy / log N: first block",
        "last block",
        "attention to prefix tokens",
    )
    rows = []
    for name, model in result.models.items():
        first, last = model.layers[0], model.layers[-1]
        rows.append(
            (
                name,
                str(model.n_images),
                *(f"{np.mean(layer.distance):.1f} px" for layer in (first, last)),
                f"{model.uniform_distance:.1f} px",
                *(f"{np.mean(layer.entropy_share):.2f}" for layer in (first, last)),
                f"{100 * np.mean(last.prefix_mass):.0f} %",
            )
        )
    note = (
        "means over heads, images and patches; prefix tokens: class tokens and registers, in the last block"
    )
    return Summary(header, tuple(rows), (note,))
