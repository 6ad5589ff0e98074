"""The picture of a rank analysis: RankMe by depth, and bars of the final features' numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lamina.analyze.output import Summary, cell
from lamina.analyze.rank import RankResult, RankScore
from lamina.core.plotting import WIDTH, DepthAxis, coloured, legend_below, model_lines, tidy
from lamina.core.text import NO_VALUE

_POOLS = ("mean", "cls")


def draw(result: RankResult) -> Figure:
    """The curve above, a panel for each number below; a dotted line is the largest rank there can be."""
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.1, 1))
    _curves(figure.add_subplot(grid[0]), result)
    numbers = _numbers(result)
    row = grid[1].subgridspec(1, len(numbers))
    for i, (title, number) in enumerate(numbers.items()):
        panel = figure.add_subplot(row[i])
        _bars(panel, result, title, number)
        if not title.startswith("alpha"):
            panel.set_ylabel("dimensions")
    legend_below(figure, _keys(result))
    return figure


def _numbers(result: RankResult) -> dict[str, Callable[[RankScore], float | None]]:
    numbers: dict[str, Callable[[RankScore], float | None]] = {
        "RankMe": lambda score: score.rankme,
        "effective rank, centred": lambda score: score.effective_rank,
        "alpha-ReQ (slope)": lambda score: score.power_law.alpha if score.power_law else None,
    }
    if result.views:
        numbers[f"LiDAR, {result.views} views"] = lambda score: score.lidar
    return numbers


def _curves(panel: Any, result: RankResult) -> None:
    axis = DepthAxis.of(model.depth for model in result.models.values())
    for i, (_, model, hue) in enumerate(coloured(result.models)):
        x = [axis.at(score.layer, model.depth) for score in model.curve]
        panel.plot(x, [score.rankme for score in model.curve], "o-", color=hue, ms=4, linewidth=1.6)
        panel.axhline(model.most, color=hue, linestyle=(i, (1, 3)), linewidth=1.2)
    axis.label(panel)
    panel.set_ylabel("RankMe (dimensions)")
    highest = max(score.rankme for model in result.models.values() for score in model.curve)
    most = max(model.most for model in result.models.values())
    panel.set_ylim(0, 1.06 * (most if most < 2 * highest else 1.1 * highest))  # the legend says what is above
    counts = " or ".join(str(n) for n in sorted({model.n_images for model in result.models.values()}))
    panel.set_title(f"Mean of the patch tokens after each block, {counts} images", fontsize="medium")
    tidy(panel)


def _bars(panel: Any, result: RankResult, title: str, number: Callable[[RankScore], float | None]) -> None:
    kinds = [(p, q) for p in ("last", "fused") for q in _POOLS]
    found = {(s.place, s.pool) for model in result.models.values() for s in model.final}
    kinds = [kind for kind in kinds if kind in found]
    each = 0.8 / len(result.models)
    turned = 90 if len(kinds) * len(result.models) > 6 else 0  # values of narrow bars would run together
    for i, (_, model, hue) in enumerate(coloured(result.models)):
        for score in model.final:
            value = number(score)
            x = kinds.index((score.place, score.pool)) + (i - (len(result.models) - 1) / 2) * each
            if value is None:
                panel.text(x, 0, "n/a", rotation=90, ha="center", va="bottom", fontsize="x-small")
                continue
            panel.bar(x, value, 0.92 * each, color=hue)
            text = " " * bool(turned) + (f"{value:.2f}" if value < 10 else f"{value:.0f}")
            panel.text(x, value, text, ha="center", va="bottom", fontsize="x-small", rotation=turned)
    panel.set_xticks(range(len(kinds)), [f"{place}\n{pool}" for place, pool in kinds])
    panel.tick_params(axis="x", labelsize="small", length=0)
    panel.set_xlim(-0.6, len(kinds) - 0.4)
    panel.margins(y=0.22 if turned else 0.12)
    if all(number(score) is None for model in result.models.values() for score in model.final):
        panel.set_ylim(0, 1)
        panel.set_yticks([])
    panel.set_title(title, fontsize="medium")
    tidy(panel, grid=None)


def _keys(result: RankResult) -> list[Line2D]:
    keys = model_lines(result.models)
    bounds = {
        what: sorted({m.most for m in result.models.values() if (m.n_images < m.width) == few})
        for what, few in (("images", True), ("channels", False))
    }
    for what, most in bounds.items():
        if most:
            label = f"largest possible rank: {' or '.join(map(str, most))}, the number of {what}"
            keys.append(Line2D([], [], color="0.3", linestyle=":", label=label))
    return keys


def summarize(result: RankResult) -> Summary:
    """The numbers of the final features."""
    rows, notes = [], []
    for name, model in result.models.items():
        for score in model.final:
            law = score.power_law
            rows.append(
                {
                    "model": name,
                    "features": f"{score.place}, {score.pool}",
                    "RankMe": f"{score.rankme:.1f}",
                    "effective rank": f"{score.effective_rank:.1f}",
                    "largest possible": str(model.most),
                    "alpha (R²)": NO_VALUE if law is None else f"{law.alpha:.2f} ({law.r2:.2f})",
                    "LiDAR": cell(score.lidar, ".1f"),
                }
            )
        notes += [f"{name}: {note}" for note in model.notes]
    return Summary.of(rows, *notes)
