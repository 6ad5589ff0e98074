"""The picture of a segmentation: some test images beside the classes of their pixels, true and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from matplotlib.colors import hsv_to_rgb, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from lamina.analyze.pictures import picture_of, plain
from lamina.analyze.style import HUES, WIDTH, legend_below
from lamina.data.dense import IGNORE
from lamina.downstream.segment.testing import Shown
from lamina.files import replacing

MOST_NAMED = 24
"""Classes in the legend, those that cover most."""
_NOTHING = (0.86, 0.86, 0.86)
_TITLES = ("image", "true", "predicted")
_TURN = 0.61803398875  # of the golden section: hues of neighbours are far apart


def save_picture(shown: Sequence[Shown], classes: Sequence[str], file: Path) -> None:
    """Write it as PNG; nothing where there is no image to show. Raises OSError."""
    if not shown:
        return
    with replacing(file) as temporary:
        draw(shown, classes).savefig(temporary, format="png", dpi=130)


def draw(shown: Sequence[Shown], classes: Sequence[str]) -> Figure:
    """A row for each image, and the colours of the classes in them below."""
    colours = palette(len(classes))
    height, width = shown[0].truth.shape
    row = WIDTH / len(_TITLES) * min(2.0, max(0.4, height / width))
    figure = Figure(figsize=(WIDTH, 0.9 + (row + 0.22) * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), len(_TITLES), squeeze=False)
    for line, each in zip(panels, shown, strict=True):
        looks = (picture_of(each.image), *(_coloured(m, colours) for m in (each.truth, each.predicted)))
        for panel, look in zip(line, looks, strict=True):
            panel.imshow(look, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
        line[0].set_title(plain(each.name, 40), fontsize="small", loc="left", color="0.3")
    for panel, title in zip(panels[0][1:], _TITLES[1:], strict=True):
        panel.set_title(title, fontsize="small", loc="left")
    legend_below(figure, _keys(shown, classes, colours))
    return figure


def palette(n_classes: int) -> NDArray[np.float64]:
    """A colour for each class, the last row for pixels without one; up to seven are told apart by
    colour-blind readers too (Okabe and Ito), more differ in hue, and in turn in lightness."""
    if n_classes <= len(HUES):
        colours = [to_rgb(hue) for hue in HUES[:n_classes]]
    else:
        places = np.arange(n_classes)
        hue, light = (places * _TURN) % 1, np.array([0.95, 0.65, 0.8])[places % 3]
        colours = list(hsv_to_rgb(np.stack([hue, np.full(n_classes, 0.75), light], axis=1)))
    return np.array([*colours, _NOTHING], dtype=np.float64)


def _coloured(classes: UInt8[Tensor, "H W"], colours: NDArray[np.float64]) -> NDArray[np.float64]:
    numbers = classes.numpy().astype(np.int64)
    return np.asarray(colours[np.where(numbers == IGNORE, len(colours) - 1, numbers)])


def _keys(shown: Sequence[Shown], classes: Sequence[str], colours: NDArray[np.float64]) -> list[Patch]:
    """Those that cover most first; what has no class last, where there is any."""
    maps = [each.numpy().ravel() for one in shown for each in (one.truth, one.predicted)]
    counts = np.bincount(np.concatenate(maps), minlength=IGNORE + 1)
    order = [k for k in np.argsort(-counts[: len(classes)], kind="stable") if counts[k]]
    keys = [Patch(color=colours[k], label=plain(classes[k], 24)) for k in order[:MOST_NAMED]]
    if len(order) > MOST_NAMED:
        keys.append(Patch(color="none", label=f"and {len(order) - MOST_NAMED} more"))
    if counts[IGNORE]:
        keys.append(Patch(color=_NOTHING, label="no class"))
    return keys
