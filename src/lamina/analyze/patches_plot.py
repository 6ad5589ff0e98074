"""The picture of a patch analysis: for each model rows of image, colours, norms, cosines, class attention."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from lamina.analyze.measures.patch_maps import OUTLIER_SIGMAS
from lamina.analyze.output import Summary
from lamina.analyze.patches import ModelPatches, PatchesResult, ShownImage
from lamina.core.plotting import coloured, figure_text
from lamina.core.shown_pixels import channels_shown

_WIDTH = 1.5  # of a column, in inches
_EDGE = "white"


def draw(result: PatchesResult) -> Figure:
    """Blocks of rows, one for each model; each has scales of its own."""
    heights = [1.35 + len(model.shown) * _height(model) for model in result.models.values()]
    figure = Figure(figsize=(5 * _WIDTH + 0.4, sum(heights)), layout="constrained")
    blocks = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for block, (name, model, hue) in zip(blocks, coloured(result.models), strict=True):
        _block(block, name, model, hue)
    return figure


def _height(model: ModelPatches) -> float:
    """Height of a row in inches."""
    tall, wide = model.shown[0].picture.shape[:2]
    return float(_WIDTH * min(2.0, max(0.25, tall / wide)))


def _block(block: SubFigure, name: str, model: ModelPatches, hue: str) -> None:
    norms = model.norms
    explained = " + ".join(f"{100 * share:.0f}" for share in model.explained)
    beyond = f"median {norms.median:.3g} + {OUTLIER_SIGMAS:g} robust deviations"
    block.suptitle(
        f"{figure_text(name, 50)}: the colours explain {explained} % of the variance\n"
        f"{100 * norms.share:.2g} % of the {norms.n_tokens} patches of {norms.n_images} images "
        f"are outliers: norm above {norms.threshold:.3g} ({beyond})",
        color=hue,
        fontsize="small",
    )
    ratios = [_height(model)] * len(model.shown) + [0.12]
    axes = block.subplots(len(ratios), 5, squeeze=False, height_ratios=ratios)
    axes, bars = axes[:-1], axes[-1]
    for bar in bars:
        bar.set_axis_off()
    channels = channels_shown(model.channels)
    image_title = f"image ({channels})" if channels else "image"
    titles = (image_title, "principal components", "norm", "cosine with \u25a1", "class attention")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize="small")
    for row, image in zip(axes, model.shown, strict=True):
        _image(row, image, model)
    norm_maps = [image.norms for image in model.shown]
    _maps(axes[:, 2], bars[2], norm_maps, model, "norm of the token (\u00d7: outlier)")
    _maps(axes[:, 3], bars[3], [image.cosines for image in model.shown], model, "cosine")
    given = [image.attention for image in model.shown if image.attention is not None]
    if given:
        _maps(axes[:, 4], bars[4], given, model, "attention / its mean")
    for row, image in zip(axes, model.shown, strict=True):
        _marks(row, image, model)


def _extent(image: ShownImage) -> tuple[float, float, float, float]:
    """Maps lie over the image, in its pixels."""
    tall, wide = image.picture.shape[:2]
    return (0.0, float(wide), float(tall), 0.0)


def _image(row: Any, image: ShownImage, model: ModelPatches) -> None:
    """The image and its colours; a note in place of attention where there is no class token."""
    for panel in row:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)
    row[0].imshow(image.picture, extent=_extent(image), interpolation="nearest")
    row[0].set_ylabel(figure_text(image.name, max(4, int(13 * _height(model)))), fontsize="x-small")
    hues = np.stack([image.red, image.green, image.blue], axis=-1)
    row[1].imshow(hues, extent=_extent(image), interpolation="nearest")
    if image.attention is None:
        row[4].set_box_aspect(image.picture.shape[0] / image.picture.shape[1])
        middle = {"ha": "center", "va": "center", "transform": row[4].transAxes}
        why = fill(figure_text(model.without_attention or "", 200), 18)
        row[4].text(0.5, 0.5, why, color="0.4", fontsize="xx-small", **middle)
        row[4].set_facecolor("0.96")


def _maps(column: Any, place: Any, maps: Any, model: ModelPatches, unit: str) -> None:
    """One map in each row of a column, on one scale, and its bar in `place`."""
    low, high = min(np.min(values) for values in maps), max(np.max(values) for values in maps)
    for panel, values, image in zip(column, maps, model.shown, strict=True):
        drawn = panel.imshow(
            values, extent=_extent(image), interpolation="nearest", cmap="viridis", vmin=low, vmax=high
        )
    place.set_axis_on()
    bar = place.figure.colorbar(drawn, cax=place, orientation="horizontal", ticks=MaxNLocator(4))
    bar.set_label(unit, fontsize="x-small")
    place.tick_params(labelsize="x-small")


def _marks(row: Any, image: ShownImage, model: ModelPatches) -> None:
    """A square around the chosen patch, crosses on outliers."""
    (tall, wide), (rows, columns) = image.picture.shape[:2], model.grid
    high, broad = tall / rows, wide / columns
    corner = (model.at[1] * broad, model.at[0] * high)
    for panel, hue in ((row[0], _EDGE), (row[3], _EDGE)):
        panel.add_patch(Rectangle(corner, broad, high, fill=False, edgecolor="black", linewidth=2.2))
        panel.add_patch(Rectangle(corner, broad, high, fill=False, edgecolor=hue, linewidth=1.0))
    out = np.argwhere(np.asarray(image.norms) > model.norms.threshold)
    x, y = (out[:, 1] + 0.5) * broad, (out[:, 0] + 0.5) * high
    row[2].scatter(x, y, marker="x", s=14, linewidths=2.2, color="black")
    row[2].scatter(x, y, marker="x", s=9, linewidths=0.8, color=_EDGE)


def summarize(result: PatchesResult) -> Summary:
    """The variance that the principal components explain, and the share of outlier tokens."""
    rows = [
        {
            "model": name,
            "images": str(model.norms.n_images),
            "grid": f"{model.grid[0]} x {model.grid[1]}",
            "variance of three components": ", ".join(f"{100 * v:.0f}" for v in model.explained) + " %",
            "outlier patches": f"{100 * model.norms.share:.2f} %",
            "mean cosine of two patches": f"{model.mean_cosine:.2f}",
        }
        for name, model in result.models.items()
    ]
    note = (
        "variance: explained by the principal components of the shown images; outlier patches: norm more "
        f"than {OUTLIER_SIGMAS:g} robust deviations above the median"
    )
    notes = [f"{n}: {m.without_attention}" for n, m in result.models.items() if m.without_attention]
    return Summary.of(rows, note, *notes)
