"""The picture of a depth analysis: accuracy after every block, with last and fused features at the side."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.analyze.layer_probes import DepthResult, ModelDepth
from lamina.analyze.output import Summary, cell
from lamina.core.plotting import WIDTH, DepthAxis, coloured, legend_below, model_lines, tidy

_TITLES = {"knn": "k nearest neighbours", "linear": "linear probe"}
_POOLS: dict[str, tuple[Any, str, str]] = {
    "mean": ("-", "o", "mean of the patch tokens"),
    "cls": ("--", "s", "class token"),
}
_SIDE = ("last", "fused")


def draw(result: DepthResult) -> Figure:
    """A panel for each protocol; depth is a share of the network where models differ in depth."""
    panels = len(result.protocols)
    figure = Figure(figsize=(min(WIDTH, 5.4 * panels), 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, sharey=True)[0]
    axis = DepthAxis.of(model.depth for model in result.models.values())
    for panel, protocol in zip(axes, result.protocols, strict=True):
        for i, (_, model, hue) in enumerate(coloured(result.models)):
            for pool in _POOLS:
                _curve(panel, axis, model, protocol, pool, hue)
                _beside(panel, axis, model, protocol, pool, hue, (i, len(result.models)))
        panel.axhline(100 * result.majority, color="0.5", linestyle=":", linewidth=1)
        _ticks(panel, axis, any(s.place == "fused" for m in result.models.values() for s in m.scores))
        panel.set_title(_TITLES[protocol], fontsize="medium")
        panel.set_ylim(_limits(result))
        tidy(panel)
    tested = sorted({model.n_test for model in result.models.values()})
    axes[0].set_ylabel(f"accuracy on {' or '.join(map(str, tested))} test images (%)")
    legend_below(figure, _keys(result))
    return figure


def _limits(result: DepthResult) -> tuple[float, float]:
    """Around all that is drawn; the largest class may be out of sight, the legend says its share."""
    scores = [score for model in result.models.values() for score in model.scores]
    banded = [score for score in scores if score.place != "block" or score.pool == "mean"]
    low = min(*(s.interval[0] for s in banded), *(s.top1 for s in scores))
    high = max(*(s.interval[1] for s in banded), *(s.top1 for s in scores))
    margin = 0.06 * (high - low)
    return 100 * max(-0.01, low - margin), 100 * min(1.02, high + margin)


def _curve(panel: Any, axis: DepthAxis, model: ModelDepth, protocol: Any, pool: str, hue: str) -> None:
    scores = model.curve(protocol, pool)
    if not scores:
        return
    x = [axis.at(score.layer, model.depth) for score in scores]
    style, _, _ = _POOLS[pool]
    panel.plot(x, [100 * score.top1 for score in scores], style, color=hue, linewidth=1.6)
    if pool == "mean":
        low, high = ([100 * score.interval[end] for score in scores] for end in (0, 1))
        panel.fill_between(x, low, high, color=hue, alpha=0.15, linewidth=0)
    best = model.peaks[protocol].best
    if best.pool == pool:
        at = axis.at(best.layer, model.depth)
        panel.plot(at, 100 * best.top1, "*", color=hue, markersize=13, markeredgecolor="white", zorder=5)


def _beside(
    panel: Any,
    axis: DepthAxis,
    model: ModelDepth,
    protocol: Any,
    pool: str,
    hue: str,
    aside: tuple[int, int],
) -> None:
    """Last and fused features, right of the blocks, models and pools apart; `aside`: the i-th of n models."""
    i, n = aside
    apart = _step(axis) * 0.8 * ((2 * i + (pool == "cls") + 0.5) / (2 * n) - 0.5)
    look: dict[str, Any] = {"fmt": _POOLS[pool][1], "color": hue, "markersize": 5, "elinewidth": 1}
    for score in model.scores:
        if score.place == "block" or (score.protocol, score.pool) != (protocol, pool):
            continue
        (low, high), top1 = score.interval, 100 * score.top1
        spread = [[top1 - 100 * low], [100 * high - top1]]
        panel.errorbar([_side(score.place, axis) + apart], [top1], yerr=spread, **look)


def _step(axis: DepthAxis) -> float:
    """Width of the column of last, and of fused features."""
    return 0.2 if axis.depth is None else max(0.9, 0.2 * axis.depth)


def _side(place: str, axis: DepthAxis) -> float:
    """The middle of the column of last, or of fused features."""
    return axis.at((axis.depth or 1) - 1, 1) + _step(axis) * (0.9 + _SIDE.index(place))


def _ticks(panel: Any, axis: DepthAxis, fused: bool) -> None:
    sides = {place: _side(place, axis) for place in (_SIDE if fused else _SIDE[:1])}
    axis.label(panel, sides)
    panel.axvline(sides["last"] - 0.5 * _step(axis), color="0.8", linewidth=0.8)
    panel.set_xlim(right=max(sides.values()) + 0.55 * _step(axis))


def _keys(result: DepthResult) -> list[Line2D]:
    keys = model_lines(result.models)
    pools = {score.pool for model in result.models.values() for score in model.scores}
    for pool, (style, marker, name) in _POOLS.items():
        if pool in pools:
            band = ", 95 % interval" if pool == "mean" else ""
            keys.append(Line2D([], [], color="0.3", linestyle=style, marker=marker, ms=4, label=name + band))
    fitted = " or ".join(str(n) for n in sorted({model.n_train for model in result.models.values()}))
    best = f"best block, chosen on {fitted} training images"
    keys.append(Line2D([], [], color="0.3", linestyle="", marker="*", ms=10, label=best))
    below = ", below" if 100 * result.majority < _limits(result)[0] else ""
    largest = f"always the largest class ({100 * result.majority:.1f} %{below})"
    keys.append(Line2D([], [], color="0.5", linestyle=":", label=largest))
    return keys


def summarize(result: DepthResult) -> Summary:
    """The best block, the blocks that are about as good, and the gap to the last block."""
    rows, notes = [], []
    for name, model in result.models.items():
        for protocol, peak in model.peaks.items():
            low, high = (100 * bound for bound in peak.gap_interval)
            gap = f"{100 * peak.gap:+.1f} ({low:+.1f} to {high:+.1f})"
            final = {
                place: [s.top1 for s in model.scores if (s.protocol, s.place) == (protocol, place)]
                for place in _SIDE
            }
            best = _block(peak.best.layer) + f" of {model.depth - 1}" * (peak.best.layer >= 0)
            rows.append(
                {
                    "model": name,
                    "probe": protocol,
                    "best block": best,
                    "its top-1": f"{100 * peak.best.top1:.1f} %",
                    "within one standard error": " to ".join(map(_block, peak.plateau)),
                    "blocks after it": str(peak.blocks_after),
                    "gap to the last block (95 % interval)": gap,
                    **{
                        place: cell(max(top1, default=None), ".1f", 100.0, " %")
                        for place, top1 in final.items()
                    },
                }
            )
        notes += [f"{name}: {note}" for note in model.notes]
    model = next(iter(result.models.values()))
    images = (
        f"{model.n_train} training and {model.n_test} test images of {result.data}, {result.classes} "
        f"classes (largest: {100 * result.majority:.0f} %); the best block is chosen on the training part"
    )
    gap = "gap: top-1 of the best block minus that of the last block, in percentage points"
    return Summary.of(rows, images, gap, *notes)


def _block(layer: int) -> str:
    return "input" if layer < 0 else str(layer)
