"""The picture of a similarity analysis: a heat map for each pair of models, layer by layer."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lamina.analyze.output import Summary, cell
from lamina.analyze.similarity import SimilarityResult
from lamina.core.plotting import WIDTH, figure_text, hues

_POOLS = {"mean": "the mean of the patch tokens", "cls": "the class token"}


def draw(result: SimilarityResult) -> Figure:
    """The upper triangle of models x models; grey where a layer is the same for all images."""
    names = list(result.layers)
    n = len(names)
    side = min(3.4, (WIDTH - 1.2) / n)  # of a pair with its labels, in inches
    figure = Figure(figsize=(1.2 + side * n, 0.4 + side * n), layout="constrained")
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
            _ticks(panel, result.layers[second], result.layers[first], int(4 * side))
            most = max(6, int(14 * side) - 14)  # letters that fit beside a panel after "block of"
            across, up = (f"block of {figure_text(name, most)}" for name in (second, first))
            panel.set_xlabel(across, color=hues(names)[column], fontsize="small")
            panel.set_ylabel(up, color=hues(names)[row], fontsize="small")
    bar = figure.colorbar(image, ax=panels, shrink=0.8 if n == 1 else 0.5, pad=0.02)
    bar.set_label("debiased linear CKA")
    figure.suptitle(f"Similarity of {_POOLS[result.pool]}, {result.n_images} images", fontsize="medium")
    return figure


def _ticks(panel: Any, across: tuple[int, ...], up: tuple[int, ...], most: int) -> None:
    for layers, set_ticks in ((across, panel.set_xticks), (up, panel.set_yticks)):
        stride = next(each for each in (1, 2, 4, 8, 16) if len(layers) <= each * most or each == 16)
        shown = [i for i, layer in enumerate(layers) if layer == -1 or (layer + 1) % stride == 0]
        set_ticks(shown, ["in" if layers[i] == -1 else str(layers[i]) for i in shown], fontsize="small")


def summarize(result: SimilarityResult) -> Summary:
    """Input with last layer within a model, last with last between models."""
    rows = []
    for pair in result.pairs:
        within = pair.first == pair.second
        value = pair.cka[0][-1] if within else pair.cka[-1][-1]
        begins = result.layers[pair.first][0]
        first = "embedded input" if begins < 0 else f"block {begins}"
        what = f"{first} and last block" if within else "last blocks"
        names = {"model": pair.first, "other model": pair.second}
        rows.append({**names, "layers": what, "CKA": cell(value, ".3f")})
    return Summary.of(rows, f"debiased linear CKA over {result.n_images} images, by {_POOLS[result.pool]}")
