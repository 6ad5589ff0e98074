"""The picture of fusion weights: weights and norm shares of each run by step, and of all runs at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from lamina.analyze.fusion_weights import LayersResult, LayerWeights
from lamina.analyze.output import Summary
from lamina.core.plotting import WIDTH, coloured, depths, figure_text, tidy
from lamina.fusion.mff import MOST_IMAGES

_ROW = 4.6  # inches


def draw(result: LayersResult) -> Figure:
    """Two rows for each run, weights and norm shares, as lines and as a heat map; last, all runs."""
    n = len(result.runs)
    heights = [_ROW] * n + [2.6 + 0.2 * n]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    rows = figure.subfigures(n + 1, 1, squeeze=False, height_ratios=heights)[:, 0]
    for row, (name, run, hue) in zip(rows, coloured(result.runs), strict=False):
        _run(row, figure_text(name), run, hue)
    _ends(rows[-1], result)
    return figure


def _run(row: SubFigure, name: str, run: LayerWeights, hue: str) -> None:
    row.suptitle(f"{name}\n{_moved(run)}", color=hue, fontsize="small")
    panels = row.subplots(2, 2)
    kinds = (("softmax weight", run.weights), ("norm share", run.shares))
    for (lines, heat), (kind, mass) in zip(panels, kinds, strict=True):
        _lines(lines, run, mass, kind)
        _heat(heat, run, mass, kind)
    _learning(panels[0, 0], run)


def _moved(run: LayerWeights) -> str:
    """How far the logits of a run can have moved."""
    total = f"learning rates up to step {run.steps[-1]} add up to {run.lr_sums[-1]:.3g}"
    if run.logit_reach is None:
        return f"{total}; attention pooling: weights are means over heads, tokens and images"
    reach = f"{run.logit_lr_scale:g} = {run.logit_reach[-1]:.3g}"
    return f"{total}, \u00d7 {reach}: about how far a logit can have moved"


def _lines(panel: Any, run: LayerWeights, mass: tuple[tuple[float, ...], ...], kind: str) -> None:
    """Each tap's mass, coloured by its depth; dotted: equal weights."""
    colours, scale = depths(), Normalize(0, max(1, run.depth - 1))
    look: dict[str, Any] = {"lw": 1.4, "marker": "o" if len(run.steps) == 1 else "", "clip_on": False}
    for layer, masses in zip(run.layers, np.asarray(mass).T, strict=True):
        panel.plot(run.steps, masses, color=colours(scale(layer)), label=f"block {layer}", **look)
    panel.axhline(1 / len(run.layers), color="0.5", lw=1, ls=":", zorder=0)
    panel.set(xlim=(0, run.steps[-1]), xlabel="step", ylabel=kind)
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    bar = panel.figure.colorbar(ScalarMappable(scale, colours), ax=panel, pad=0.03, aspect=24)
    bar.set_ticks(_shown(range(run.depth)))
    bar.set_label("block")


def _learning(panel: Any, run: LayerWeights) -> None:
    """A second axis: the sum of learning rates, at the first one's ticks."""
    sums = run.lr_sums if run.logit_reach is None else run.logit_reach
    at = [step for step in panel.get_xticks() if run.steps[0] <= step <= run.steps[-1]] or [run.steps[-1]]
    above = panel.secondary_xaxis("top")
    above.set_ticks(at, [f"{np.interp(step, run.steps, sums):.2g}" for step in at])
    scaled = "" if run.logit_reach is None else f" \u00d7 {run.logit_lr_scale:g}"
    above.tick_params(labelsize="small")
    above.set_xlabel(f"sum of learning rates{scaled}", fontsize="small")


def _heat(panel: Any, run: LayerWeights, mass: tuple[tuple[float, ...], ...], title: str) -> None:
    """A row for each tap, the first one below; a cell holds from the log row before up to its own."""
    edges = [0, *run.steps]
    rows = np.arange(len(run.layers) + 1) - 0.5
    # Edges in the cells' own colours: viewers of SVG leave pale seams between them.
    look: dict[str, Any] = {"cmap": "magma", "edgecolors": "face", "linewidth": 0.3}
    image = panel.pcolormesh(edges, rows, np.asarray(mass).T, **look)
    shown = _shown(range(len(run.layers)))
    panel.set_yticks(shown, [str(run.layers[i]) for i in shown])
    panel.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    panel.set(xlabel="step", ylabel="block")
    panel.set_title(title, fontsize="medium")
    panel.figure.colorbar(image, ax=panel, pad=0.03, aspect=24, ticks=MaxNLocator(4))


def _shown(places: range) -> list[int]:
    """At most eight evenly spaced places, so that their labels fit beside an axis."""
    return list(places[:: -(-len(places) // 8)])


def _ends(row: SubFigure, result: LayersResult) -> None:
    """The last step's weights and shares over the blocks, all runs in each panel."""
    row.suptitle(
        f"At the last step (dotted: equal weights; norm shares: over up to {MOST_IMAGES} images)",
        fontsize="small",
    )
    weights, shares = row.subplots(1, 2, sharey=True)
    for i, (name, run, hue) in enumerate(coloured(result.runs)):
        for panel, last, bias in (
            (weights, run.weights[-1], run.by_weight),
            (shares, run.shares[-1], run.by_share),
        ):
            label = f"{figure_text(name, 30)}: {bias.first_half:.2f}, {bias.centre:.2f}"
            panel.plot(run.layers, last, "o-", color=hue, ms=4, lw=1.4, label=label)
            panel.axhline(1 / len(run.layers), color=hue, lw=1, ls=(2 * i, (1, 3)), zorder=0)
    weights.set_ylim(bottom=0)
    for panel, kind in ((weights, "softmax weight"), (shares, "norm share")):
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set(xlabel="block", ylabel=kind)
        panel.tick_params(labelleft=True)
        tidy(panel, grid=None)
        panel.legend(
            handles=[line for line in panel.get_lines() if line.get_marker() == "o"],
            title="run: sum over the first half, centre of mass (0 to 1)",
            title_fontsize="small",
            fontsize="small",
            frameon=False,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.25),
        )


def summarize(result: LayersResult) -> Summary:
    """Weights and norm shares at the last step."""
    rows = [
        {
            "run": name,
            "step": str(run.steps[-1]),
            "weight on first half": f"{run.by_weight.first_half:.2f}",
            "norm share on first half": f"{run.by_share.first_half:.2f}",
            "centre of weights": f"{run.by_weight.centre:.2f}",
            "centre of norm shares": f"{run.by_share.centre:.2f}",
            "largest weight": f"block {run.layers[int(np.argmax(run.weights[-1]))]}",
        }
        for name, run in result.runs.items()
    ]
    centre = "centre: the centre of mass in depth, from 0 (all on the first block) to 1 (all on the last)"
    return Summary.of(rows, *(f"{name}: {_moved(run)}" for name, run in result.runs.items()), centre)
