"""The picture of a detection: some test images with their true objects, and with those that were found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from lamina.analyze.shown_images import picture_of
from lamina.core.plotting import figure_text, legend_below
from lamina.evaluate.dense.plot import MOST_NAMED, legend_patches, palette, rows_of_panels
from lamina.evaluate.detect.inference import ShownImage
from lamina.evaluate.detect.paste_masks import paste

LEAST_SCORE = 0.3
"""Detections that are drawn; those that are less sure count in the metric, but hide the image."""
_VEIL = 0.45
_LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class _Drawn(NamedTuple):
    """An object as it is drawn."""

    box: Float[Tensor, "4"]
    label: int
    mask: Bool[Tensor, "H W"] | None
    score: float | None


def draw(shown: Sequence[ShownImage], classes: Sequence[str]) -> Figure:
    """A row for each image, and the colours of the classes in them below."""
    colours = palette(len(classes))
    figure, panels = rows_of_panels(len(shown), 2, shown[0].image.shape[-2:], tallest=1.5)
    used: set[int] = set()
    for line, each in zip(panels, shown, strict=True):
        line[0].set_title(f"{figure_text(each.name, 40)}: true", fontsize="small", loc="left", color="0.3")
        for panel, objects in zip(line, (_true(each), _found(each)), strict=True):
            _panel(panel, each, objects, colours)
            used |= {one.label for one in objects}
    panels[0][1].set_title(f"found, score {LEAST_SCORE} or more", fontsize="small", loc="left", color="0.3")
    legend_below(figure, legend_patches(sorted(used)[:MOST_NAMED], classes, colours))
    return figure


def _true(each: ShownImage) -> list[_Drawn]:
    truth = each.truth
    known = truth.take(~truth.crowd)
    rows = zip(known.boxes, known.labels.tolist(), known.masks, strict=True)
    return [_Drawn(box, label, mask, None) for box, label, mask in rows]


def _found(each: ShownImage) -> list[_Drawn]:
    found, size = each.found, (each.image.shape[-2], each.image.shape[-1])
    drawn = []
    for i, score in reversed(list(enumerate(found.scores.tolist()))):  # the surest lie on top
        if score >= LEAST_SCORE:
            mask = None if found.masks is None else paste(found.masks[i], found.boxes[i], size)
            drawn.append(_Drawn(found.boxes[i], int(found.labels[i]), mask, score))
    return drawn


def _panel(panel: Axes, each: ShownImage, objects: Sequence[_Drawn], colours: NDArray[np.float64]) -> None:
    """The image under the masks, boxes and scores of objects."""
    picture = np.asarray(picture_of(each.image), dtype=np.float64)
    picture = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    picture = picture / 255 if picture.max() > 1 else picture.copy()
    for one in objects:
        if one.mask is not None:
            inside = one.mask.numpy()
            picture[inside] = (1 - _VEIL) * picture[inside] + _VEIL * colours[one.label]
    height, width = picture.shape[:2]
    panel.imshow(picture, interpolation="nearest", extent=(0, width, height, 0))
    for one in objects:
        x1, y1, x2, y2 = one.box.tolist()
        edge = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colours[one.label], linewidth=1.2)
        panel.add_patch(edge)
        if one.score is not None:
            text = f"{one.score:.2f}".removeprefix("0")
            at_top = y1 < height / 12  # there the score would leave the picture
            ink = "w" if colours[one.label][:3] @ _LUMINANCE < 0.5 else "k"
            label = {"facecolor": colours[one.label], "edgecolor": "none", "pad": 0.8}
            panel.text(x1, y1, text, va="top" if at_top else "bottom", fontsize=6, color=ink, bbox=label)
