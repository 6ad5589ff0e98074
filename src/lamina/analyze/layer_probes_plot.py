"""The picture of a depth analysis: accuracy after every block, with last and fused features at the side."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.analyze.layer_probes import DepthResult, LayerScore, ModelDepth
from lamina.analyze.output import NONE, Summary
from lamina.core.plotting import WIDTH, depth_ticks, hues, legend_below, model_lines, tidy

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
    depths = {model.depth for model in result.models.values()}
    scale = next(iter(depths)) if len(depths) == 1 else None
    for panel, protocol in zip(axes, result.protocols, strict=True):
        for i, (model, hue) in enumerate(zip(result.models.values(), hues(result.models), strict=True)):
            for pool in _POOLS:
                _curve(panel, model, protocol, pool, hue, scale)
                aside = (i, len(result.models))
                _beside(panel, model, protocol, pool, hue, aside, scale)
        panel.axhline(100 * result.majority, color="0.5", linestyle=":", linewidth=1)
        _ticks(panel, scale, any(s.place == "fused" for m in result.models.values() for s in m.scores))
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


def _at(layer: int, depth: int, scale: int | None) -> float:
    """Where a layer is drawn: its number, or the share of the blocks that it is the end of."""
    return float(layer) if scale is not None else (layer + 1) / depth


def _curve(panel: Any, model: ModelDepth, protocol: Any, pool: str, hue: str, scale: int | None) -> None:
    scores = model.curve(protocol, pool)
    if not scores:
        return
    x = [_at(score.layer, model.depth, scale) for score in scores]
    style, _, _ = _POOLS[pool]
    panel.plot(x, [100 * score.top1 for score in scores], style, color=hue, linewidth=1.6)
    if pool == "mean":
        low, high = ([100 * score.interval[end] for score in scores] for end in (0, 1))
        panel.fill_between(x, low, high, color=hue, alpha=0.15, linewidth=0)
    best = model.peaks[protocol].best
    if best.pool == pool:
        at = _at(best.layer, model.depth, scale)
        panel.plot(at, 100 * best.top1, "*", color=hue, markersize=13, markeredgecolor="white", zorder=5)


def _beside(
    panel: Any,
    model: ModelDepth,
    protocol: Any,
    pool: str,
    hue: str,
    aside: tuple[int, int],
    scale: int | None,
) -> None:
    """Last and fused features, right of the blocks, models and pools apart; `aside`: the i-th of n models."""
    i, n = aside
    for score in model.scores:
        if score.place == "block" or (score.protocol, score.pool) != (protocol, pool):
            continue
        x = _side(score.place, scale) + _step(scale) * 0.8 * ((2 * i + (pool == "cls") + 0.5) / (2 * n) - 0.5)
        _bar(panel, x, score, _POOLS[pool][1], hue)


def _bar(panel: Any, x: float, score: LayerScore, marker: str, hue: str) -> None:
    low, high = score.interval
    spread = [[100 * (score.top1 - low)], [100 * (high - score.top1)]]
    panel.errorbar([x], [100 * score.top1], yerr=spread, fmt=marker, color=hue, markersize=5, elinewidth=1)


def _step(scale: int | None) -> float:
    """Width of the column of last, and of fused features."""
    return 0.2 if scale is None else max(0.9, 0.2 * scale)


def _side(place: str, scale: int | None) -> float:
    return _at((scale or 1) - 1, 1, scale) + _step(scale) * (0.9 + _SIDE.index(place))


def _ticks(panel: Any, scale: int | None, fused: bool) -> None:
    sides = _SIDE if fused else _SIDE[:1]
    where, names, label = depth_ticks(scale)
    panel.set_xlabel(label)
    panel.set_xticks(
        [*where, *(_side(place, scale) for place in sides)],
        [*names, *sides],
    )
    panel.axvline(_side("last", scale) - 0.5 * _step(scale), color="0.8", linewidth=0.8)
    panel.set_xlim(right=_side(sides[-1], scale) + 0.55 * _step(scale))


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
    header = (
        "model",
        "probe",
        "best block",
        "its top-1",
        "within one standard error",
        "blocks after it",
        "gap to the last block (95 % interval)",
        "last",
        "fused",
    )
    rows, notes = [], []
    for name, model in result.models.items():
        for protocol, peak in model.peaks.items():
            low, high = (100 * bound for bound in peak.gap_interval)
            finals = [
                max(
                    (s.top1 for s in model.scores if (s.protocol, s.place) == (protocol, place)), default=None
                )
                for place in ("last", "fused")
            ]
            rows.append(
                (
                    name,
                    protocol,
                    _block(peak.best.layer) + f" of {model.depth - 1}" * (peak.best.layer >= 0),
                    f"{100 * peak.best.top1:.1f} %",
                    " to ".join(map(_block, peak.plateau)),
                    str(peak.blocks_after),
                    f"{100 * peak.gap:+.1f} ({low:+.1f} to {high:+.1f})",
                    *(NONE if value is None else f"{100 * value:.1f} %" for value in finals),
                )
            )
        notes += [f"{name}: {note}" for note in model.notes]
    model = next(iter(result.models.values()))
    images = (
        f"{model.n_train} training and {model.n_test} test images of {result.data}, {result.classes} "
        f"classes (largest: {100 * result.majority:.0f} %); the best block is chosen on the training part"
    )
    gap = "gap: top-1 of the best block minus that of the last block, in percentage points"
    return Summary(header, tuple(rows), (images, gap, *notes))


def _block(layer: int) -> str:
    return "input" if layer < 0 else str(layer)
