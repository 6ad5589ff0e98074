"""The picture of a segmentation: some test images beside the classes of their pixels, true and predicted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from lamina.analyze.shown_images import picture_of
from lamina.core.plotting import figure_text, legend_below
from lamina.data.dense.sources import IGNORE
from lamina.evaluate.dense.plot import MOST_NAMED, NO_CLASS, legend_patches, palette, rows_of_panels
from lamina.evaluate.segment.inference import ShownImage

_TITLES = ("image", "true", "predicted")


def draw(shown: Sequence[ShownImage], classes: Sequence[str]) -> Figure:
    """A row for each image, and the colours of the classes in them below."""
    colours = palette(len(classes))
    figure, panels = rows_of_panels(len(shown), len(_TITLES), shown[0].truth.shape, tallest=2.0)
    for line, each in zip(panels, shown, strict=True):
        pictures = (picture_of(each.image), *(_coloured(m, colours) for m in (each.truth, each.predicted)))
        for panel, picture in zip(line, pictures, strict=True):
            panel.imshow(picture, interpolation="nearest")
        line[0].set_title(figure_text(each.name, 40), fontsize="small", loc="left", color="0.3")
    for panel, title in zip(panels[0][1:], _TITLES[1:], strict=True):
        panel.set_title(title, fontsize="small", loc="left")
    legend_below(figure, _keys(shown, classes, colours))
    return figure


def _coloured(classes: UInt8[Tensor, "H W"], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    numbers = classes.numpy().astype(np.int64)
    return np.asarray(colours[np.where(numbers == IGNORE, len(colours) - 1, numbers)])


def _keys(shown: Sequence[ShownImage], classes: Sequence[str], colours: NDArray[np.float64]) -> list[Patch]:
    """Those that cover most first; what has no class last, where there is any."""
    maps = [each.numpy().ravel() for one in shown for each in (one.truth, one.predicted)]
    counts = np.bincount(np.concatenate(maps), minlength=IGNORE + 1)
    order = [k for k in np.argsort(-counts[: len(classes)], kind="stable") if counts[k]]
    keys = legend_patches(order[:MOST_NAMED], classes, colours)
    if len(order) > MOST_NAMED:
        keys.append(Patch(color="none", label=f"and {len(order) - MOST_NAMED} more"))
    if counts[IGNORE]:
        keys.append(Patch(color=NO_CLASS, label="no class"))
    return keys
