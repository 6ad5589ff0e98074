"""The picture of a similarity analysis: a heat map for each pair of models, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lamina.analyze.style import colour

if TYPE_CHECKING:
    from lamina.analyze.similarity import SimilarityResult

_POOLS = {"mean": "the mean of the patch tokens", "cls": "the class token"}


def draw(result: SimilarityResult) -> Figure:
    """The upper triangle of models x models; grey where a layer is the same for all images."""
    names = list(result.layers)
    n = len(names)
    figure = Figure(figsize=(1.6 + 3.2 * n, 0.9 + 3.0 * n), layout="constrained")
    panels = figure.subplots(n, n, squeeze=False)
    colours = matplotlib.colormaps["viridis"].with_extremes(bad="0.8")
    for row, first in enumerate(names):
        for column, second in enumerate(names):
            panel = panels[row, column]
            if column < row:
                panel.set_visible(False)
                continue
            # Columns of the picture are the layers of its column's model.
            values = np.array(result.between(first, second), dtype=float)
            image = panel.imshow(values, cmap=colours, vmin=0, vmax=1, origin="lower", aspect="auto")
            panel.set_box_aspect(1)
            _ticks(panel, result.layers[second], result.layers[first])
            panel.set_xlabel(f"block of {second}", color=colour(column))
            panel.set_ylabel(f"block of {first}", color=colour(row))
    bar = figure.colorbar(image, ax=panels, shrink=0.8 if n == 1 else 0.5, pad=0.02)
    bar.set_label("debiased linear CKA")
    figure.suptitle(f"Similarity of {_POOLS[result.pool]}, {result.n_images} images", fontsize="medium")
    return figure


def _ticks(panel: Any, across: tuple[int, ...], up: tuple[int, ...]) -> None:
    for layers, set_ticks in ((across, panel.set_xticks), (up, panel.set_yticks)):
        stride = 1 if len(layers) <= 7 else 2 if len(layers) <= 14 else 4 if len(layers) <= 28 else 8
        shown = [i for i, layer in enumerate(layers) if layer == -1 or (layer + 1) % stride == 0]
        set_ticks(shown, ["in" if layers[i] == -1 else str(layers[i]) for i in shown])
