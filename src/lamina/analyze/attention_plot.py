"""The picture of an attention analysis: a dot for each head, a line for their mean, by depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.analyze.attention import AttentionResult, ModelAttention
from lamina.analyze.output import Summary
from lamina.core.plotting import WIDTH, DepthAxis, coloured, figure_text, legend_below, tidy

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
    axis = DepthAxis.of((len(model.layers) for model in result.models.values()), embedded=False)
    for panel, number in zip(panels, wanted, strict=True):
        for i, (_, model, hue) in enumerate(coloured(result.models)):
            _heads(panel, axis, model, number, i, len(result.models), hue)
        axis.label(panel)
        low, high = panel.get_ylim()
        if low < 0.5 * high:  # else all is so near to uniform that nothing would be seen
            panel.set_ylim(bottom=0)
        panel.set_ylabel(_LABELS[number])
        tidy(panel)
    legend_below(figure, _keys(result))
    return figure


def _heads(panel: Any, axis: DepthAxis, model: ModelAttention, number: str, i: int, n: int, hue: str) -> None:
    scale = 100.0 if number == "prefix_mass" else 1.0
    depth = len(model.layers)
    x = [axis.at(layer.layer, depth) for layer in model.layers]
    values = [[scale * value for value in getattr(layer, number)] for layer in model.layers]
    aside = (i - (n - 1) / 2) * (0.18 / depth if axis.depth is None else 0.18)  # dots beside each other
    for at, heads in zip(x, values, strict=True):
        panel.scatter([at + aside] * len(heads), heads, s=9, color=hue, alpha=0.45, linewidths=0)
    panel.plot(x, [sum(heads) / len(heads) for heads in values], color=hue, linewidth=1.6)
    uniform = {
        "distance": model.uniform_distance,
        "entropy": model.uniform_entropy,
        "prefix_mass": 100 * model.n_prefix / (model.n_prefix + model.grid[0] * model.grid[1]),
    }
    panel.axhline(uniform[number], color=hue, linestyle=(2 * i, (1, 3)), linewidth=1.3)


def _keys(result: AttentionResult) -> list[Line2D]:
    keys = []
    for name, model, hue in coloured(result.models):
        rows, columns = model.image_size
        label = f"{figure_text(name, 40)} ({model.n_images} images of {rows} x {columns} px)"
        keys.append(Line2D([], [], color=hue, linewidth=3, label=label))
    keys.append(Line2D([], [], color="0.3", marker="o", ms=4, label="one head (line: mean over heads)"))
    keys.append(Line2D([], [], color="0.3", linestyle=":", label="uniform attention"))
    return keys


def summarize(result: AttentionResult) -> Summary:
    """First and last block, means over heads."""
    rows = []
    for name, model in result.models.items():
        first, last = model.layers[0], model.layers[-1]
        rows.append(
            {
                "model": name,
                "images": str(model.n_images),
                "distance: first block": f"{np.mean(first.distance):.1f} px",
                "distance: last block": f"{np.mean(last.distance):.1f} px",
                "distance: uniform attention": f"{model.uniform_distance:.1f} px",
                "entropy / log N: first block": f"{np.mean(first.entropy_share):.2f}",
                "entropy / log N: last block": f"{np.mean(last.entropy_share):.2f}",
                "attention to prefix tokens": f"{100 * np.mean(last.prefix_mass):.0f} %",
            }
        )
    note = (
        "means over heads, images and patches; prefix tokens: class tokens and registers, in the last block"
    )
    return Summary.of(rows, note)
