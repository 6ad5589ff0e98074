"""The picture of a retrieval: for each model a row for each query, the image first, then its neighbours."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure, SubFigure

from lamina.analyze.output import Summary, cell
from lamina.analyze.retrieval import ModelRetrieval, RetrievalResult
from lamina.analyze.shown_images import Picture
from lamina.core.plotting import coloured, figure_text
from lamina.core.shown_pixels import channels_shown

_WIDTH = 1.25  # of a column, in inches
_FRAMES: dict[bool | None, tuple[str, Any, float]] = {
    None: ("0.6", "-", 1),
    True: ("black", "-", 2.5),
    False: ("0.6", (0, (3, 2)), 1),
}
"""By whether the class is the query's; colours would be taken for models'."""


def draw(result: RetrievalResult) -> Figure:
    """Blocks of rows, one for each model."""
    heights = []
    for model in result.models.values():
        tall, wide = next(iter(model.pictures.values())).shape[:2]
        heights.append(0.75 + len(model.queries) * (0.45 + _WIDTH * min(2.0, max(0.4, tall / wide))))
    columns = 1 + result.k
    figure = Figure(figsize=(max(5.0, columns * _WIDTH + 0.3), sum(heights)), layout="constrained")
    blocks = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for block, (name, model, hue) in zip(blocks, coloured(result.models), strict=True):
        block.suptitle(_title(name, model, result), color=hue, fontsize="small")
        _block(block, model, columns)
    return figure


def _title(name: str, model: ModelRetrieval, result: RetrievalResult) -> str:
    centred = ", centred" if result.centred else ""
    kind = f"{result.features} features, {'class token' if result.pool == 'cls' else 'patch mean'}{centred}"
    facts = [f"n = {model.n_images} images", kind, channels_shown(model.channels)]
    first = f"{figure_text(name)}: {', '.join(fact for fact in facts if fact)}"
    scores = model.scores
    if scores is None:
        return f"{first}\nnot one class for each image, so no precision"
    return (
        f"{first}\nprecision@{result.k} {100 * scores.precision:.1f} % (chance {100 * scores.chance:.1f} %), "
        f"mAP {100 * scores.mean_average_precision:.1f} %"
    )


def _block(block: SubFigure, model: ModelRetrieval, columns: int) -> None:
    axes = block.subplots(len(model.queries), columns, squeeze=False)
    for row, query in zip(axes, model.queries, strict=True):
        for panel in row:
            panel.set_axis_off()
        shown = query.image
        _image(row[0], model.pictures[shown.key], figure_text(shown.name, 20), shown.label, None)
        for panel, found in zip(row[1:], query.neighbours, strict=False):
            same = None if found.label is None else found.label == shown.label
            above = f"cosine {found.cosine:.2f}"
            _image(panel, model.pictures[found.key], above, found.label, same)
    for rank, panel in enumerate(axes[0]):
        panel.set_title("query" if rank == 0 else f"{rank}", fontsize="small")


def _image(panel: Any, picture: Picture, above: str, label: str | None, same: bool | None) -> None:
    """An image over its text and class; the frame of a neighbour says whether the class is the query's."""
    panel.set_axis_on()
    panel.imshow(picture, interpolation="nearest")
    panel.set_xticks([])
    panel.set_yticks([])
    hue, line, width = _FRAMES[same]
    for spine in panel.spines.values():
        spine.set(color=hue, linestyle=line, linewidth=width)
    mark = {None: "", True: "\u2713 ", False: "\u2717 "}[same]
    below = "" if label is None else mark + figure_text(label, 16)
    panel.set_xlabel(f"{above}\n{below}".strip(), fontsize="x-small")


def summarize(result: RetrievalResult) -> Summary:
    """Precision and mAP where there are labels."""
    numbers = {f"precision at {result.k}": "precision", "mAP": "mean_average_precision", "chance": "chance"}
    rows = [
        {
            "model": name,
            "images": str(model.n_images),
            **{
                column: cell(getattr(model.scores, number, None), ".1f", 100.0, " %")
                for column, number in numbers.items()
            },
            "near-duplicate pairs": str(model.duplicates),
        }
        for name, model in result.models.items()
    ]
    tokens = {"mean": "mean of the patches", "cls": "class token"}[result.pool]
    centred = ", centred" if result.centred else ""
    note = (
        f"cosine similarity of {result.features} features ({tokens}{centred}); near-duplicates of a query "
        "are left out"
    )
    labelled = any(model.scores for model in result.models.values())
    unlabelled = "precision needs one class for each image, and these have none or several labels"
    return Summary.of(rows, note, *(() if labelled else (unlabelled,)))
