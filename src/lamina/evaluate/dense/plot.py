"""The picture of a dense protocol: a row for each test image, a colour for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from lamina.core.files import replacing
from lamina.core.plotting import HUES, WIDTH, figure_text

T = TypeVar("T")

MOST_NAMED = 24
"""Classes in the legend."""
NO_CLASS = (0.86, 0.86, 0.86)
_TURN = 0.61803398875  # of the golden section: hues of neighbours are far apart


def save_picture(
    draw: Callable[[Sequence[T], Sequence[str]], Figure],
    shown: Sequence[T],
    classes: Sequence[str],
    file: Path,
) -> None:
    """Write what `draw` makes of the images to show as PNG; nothing where there is none. Raises OSError."""
    if not shown:
        return
    with replacing(file) as temporary:
        draw(shown, classes).savefig(temporary, format="png", dpi=130)


def rows_of_panels(
    n_rows: int, n_columns: int, size: tuple[int, ...], tallest: float
) -> tuple[Figure, NDArray[Any]]:
    """A figure and its panels, as high as images of `size`, height and width in px, are; of a panel's width
    `tallest` at most."""
    row = WIDTH / n_columns * min(tallest, max(0.4, size[0] / size[1]))
    figure = Figure(figsize=(WIDTH, 0.9 + (row + 0.22) * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for panel in panels.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    return figure, panels


def legend_patches(
    labels: Iterable[int], classes: Sequence[str], colours: NDArray[np.float64]
) -> list[Patch]:
    """Colour and name of classes, as entries of a legend."""
    return [Patch(color=colours[k], label=figure_text(classes[k], 24)) for k in labels]


def palette(n_classes: int) -> NDArray[np.float64]:
    """A colour for each class, the last row for pixels without one; up to seven are told apart by
    colour-blind readers too (Okabe and Ito), more differ in hue, and in turn in lightness."""
    if n_classes <= len(HUES):
        colours = [to_rgb(hue) for hue in HUES[:n_classes]]
    else:
        places = np.arange(n_classes)
        hue, light = (places * _TURN) % 1, np.array([0.95, 0.65, 0.8])[places % 3]
        colours = list(hsv_to_rgb(np.stack([hue, np.full(n_classes, 0.75), light], axis=1)))
    return np.array([*colours, NO_CLASS], dtype=np.float64)
