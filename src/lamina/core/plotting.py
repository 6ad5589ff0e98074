"""How pictures look: width, legends, colours apart for colour-blind readers too (Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from lamina.core.text import printable

HUES = ("#0072b2", "#d55e00", "#00825f", "#a8497f", "#6b4200", "#6a1fd0", "#3d3d3d")
"""Colours of models and runs, here and in reports, dark enough for lines on white."""
HUES_ON_DARK = ("#56b4e9", "#e69f00", "#2fc79c", "#d98fb8", "#f0e442", "#7a7aff", "#e8e8e8")
"""The same on a dark page."""
METHODS = {"MAE": 0, "MAE + MFF": 1, "PixMIM": 2, "PixMIM + MFF": 3, "EVA + MFF": 5, "DeiT + MFF": 6}
"""What has a colour of its own, by the place in `HUES`."""
_CALLED = {"mff": "maemff"}  # what people call a run of a method

Model = TypeVar("Model")

WIDTH = 8.0
"""Width of a picture, in inches: printed over 7 inches of text, letters of 8 pt are 7 pt high."""


def hues(names: Iterable[str]) -> list[str]:
    """Colours of models by `places`."""
    return [HUES[place] for place in places(names)]


def coloured(models: Mapping[str, Model]) -> list[tuple[str, Model, str]]:
    """Each model's name, the model, and its colour."""
    return [(name, model, hue) for (name, model), hue in zip(models.items(), hues(models), strict=True)]


def places(names: Iterable[str]) -> list[int]:
    """Places of models in `HUES`: a method's own for those that are called like it (mae, MAE, mff, MAE +
    MFF), so that it does not depend on their order; for the others those that are left, again and again."""
    names = list(names)
    known = {_letters(name): place for name, place in METHODS.items()}
    found: dict[int, int] = {}
    for i, name in enumerate(names):
        place = known.get(_CALLED.get(_letters(name), _letters(name)))
        if place is not None and place not in found.values():
            found[i] = place
    left = [place for place in range(len(HUES)) if place not in found.values()]
    others = iter(range(len(names)))
    return [found[i] if i in found else left[next(others) % len(left)] for i in range(len(names))]


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def method_colour(name: str) -> str:
    """The colour of a method, the same in the picture of every study."""
    return HUES[METHODS[name]]


def depths() -> Colormap:
    """Colours from the first block to the last: viridis without the yellow that white paper swallows, and
    without the violet that a dark page swallows."""
    return ListedColormap(colormaps["viridis"](np.linspace(0.25, 0.88, 256)))


def tidy(panel: Any, grid: Literal["x", "y", "both"] | None = "y") -> None:
    """A pale grid behind what is drawn, and no frame above and to the right."""
    if grid is not None:
        panel.grid(axis=grid, color="0.92")
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


@dataclass(frozen=True)
class DepthAxis:
    """An axis over the blocks of networks.

    Attributes:
        depth: number of blocks; None where models differ in it: the axis is then the share of the blocks.
        embedded: whether the embedded input, before the first block, is a place of its own.
    """

    depth: int | None
    embedded: bool = True

    @classmethod
    def of(cls, depths: Iterable[int], embedded: bool = True) -> DepthAxis:
        """The axis for models of these numbers of blocks."""
        different = set(depths)
        return cls(different.pop() if len(different) == 1 else None, embedded)

    def at(self, layer: int, depth: int) -> float:
        """Where a block of a model with `depth` blocks is drawn: its number, or the share of the blocks that
        it is the end of."""
        return float(layer) if self.depth is not None else (layer + 1) / depth

    def label(self, panel: Any, more: Mapping[str, float] | None = None) -> None:
        """Set the ticks and the label of the horizontal axis; `more` are further ticks by their texts."""
        ticks, label = self._ticks()
        ticks |= more or {}
        panel.set_xticks(list(ticks.values()), list(ticks))
        panel.set_xlabel(label)

    def _ticks(self) -> tuple[dict[str, float], str]:
        if self.depth is None:
            ticks = {"0": 0.0, "1/4": 0.25, "1/2": 0.5, "3/4": 0.75, "1": 1.0}
            return ticks, "depth as a share of the blocks" + " (0: embedded input)" * self.embedded
        stride = 1 if self.depth <= 12 else 2 if self.depth <= 24 else 4
        blocks = {str(i): float(i) for i in range(stride - 1, self.depth, stride)}
        return (
            ({"in": -1.0} | blocks, "after block (in: embedded input)")
            if self.embedded
            else (blocks, "block")
        )


def figure_text(text: str, most: int = 60) -> str:
    """Text for a figure: no control characters, no mathematics between dollars, the end of what is long."""
    text = printable(text)
    text = text if len(text) <= most else "\u2026" + text[1 - most :]
    return text.replace("$", r"\$")


def model_lines(names: Iterable[str], most: int = 40) -> list[Line2D]:
    """A legend's entry for each model, in its colour."""
    named = dict.fromkeys(names)
    return [
        Line2D([], [], color=hue, linewidth=3, label=figure_text(name, most))
        for name, _, hue in coloured(named)
    ]


def thin_labels(figure: Figure) -> None:
    """Leave out labels of ticks that would touch the next one to the right; of a figure that is laid out."""
    for axes in figure.axes:
        kept: Bbox | None = None
        labels = [label for label in axes.get_xticklabels() if label.get_visible() and label.get_text()]
        boxes = [(label.get_window_extent(), label) for label in labels]
        for box, label in sorted(boxes, key=lambda each: -each[0].x0):
            crowded = kept is not None and box.x1 + 0.25 * box.height > kept.x0
            if crowded and kept is not None and box.y1 > kept.y0 and box.y0 < kept.y1:
                label.set_visible(False)
            else:
                kept = box


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """The legend of all panels under them, in as many columns as the longest label allows."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    inches = 0.6 + longest / 14  # the line and its gaps; 14 letters of "small" are an inch
    columns = max(1, min(len(handles), int(figure.get_figwidth() / inches)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
