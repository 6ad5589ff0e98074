"""Which annotations of a COCO file can be used; the others are left out, and counted by the reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.core.text import counted_each

Annotation = dict[str, Any]
"""What is kept of one: box (clipped corners), label, crowd, shape (its segmentation, or None)."""
Size = tuple[int, int]

NO_MASK_SHARE = 0.01
"""Where so few annotations at most have no mask, they are left out, and not the masks of all others."""
_CORNERS = 3
_OUTSIDE = "without a box in their image"


class Unusable(Exception):
    """An annotation that cannot be used; `reason` completes "annotations left out: 3 ..."."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def by_image(
    found: Any, sizes: Mapping[int, Size], labels: Mapping[int, int], left_out: Counter[str]
) -> dict[int, list[Annotation]]:
    """Annotations as `usable` gives them, for each image id, in the file's order; counts what it leaves out.

    Raises:
        TypeError: where `found` is no list.
        ValueError: where none can be used, and not only since boxes are outside of their images.
    """
    if not isinstance(found, list):
        raise TypeError("its annotations are no list")
    kept: dict[int, list[Annotation]] = {image: [] for image in sizes}
    for each in found:
        try:
            image, label = _belongs(each, sizes, labels)
            kept[image].append(usable(each, label, sizes[image]))
        except Unusable as error:
            left_out[error.reason] += 1
    if found and left_out.total() - left_out[_OUTSIDE] == len(found):
        raise ValueError(f"none of its {len(found)} annotations can be used: {counted_each(left_out)}")
    _leave_out_unmasked(kept, left_out)
    return kept


def _belongs(found: Any, sizes: Mapping[int, Size], labels: Mapping[int, int]) -> tuple[int, int]:
    """Image id and label."""
    if not isinstance(found, dict):
        raise Unusable("that are no JSON objects")
    image, category = (_whole(found.get(key)) for key in ("image_id", "category_id"))
    if image not in sizes:
        raise Unusable("of images that are not listed")
    if category not in labels:
        raise Unusable("of categories that are not listed")
    return image, labels[category]


def _whole(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return -1  # as good as an id that is not listed


def usable(found: Mapping[str, Any], label: int, size: Size) -> Annotation:
    """One annotation of an image of that height and width.

    Raises:
        Unusable: where nothing of its box is in the image, or its segmentation is invalid.
    """
    box, shape = corners(found.get("bbox"), size), found.get("segmentation") or None
    return {
        "box": box,
        "label": label,
        "crowd": bool(found.get("iscrowd")),
        "shape": _polygons(shape, size) if isinstance(shape, list) else _run_lengths(shape, size),
    }


def corners(box: Any, size: Size) -> list[float]:
    """x1, y1, x2, y2 of a COCO box (x, y, width, height), clipped to the image.

    Raises:
        Unusable: where it is no box, or nothing of it is in the image.
    """
    if not _are_numbers(box) or len(box) != 4:
        raise Unusable("without a box of four numbers")
    x, y, w, h = map(float, box)
    left, top, right, bottom = (
        max(x, 0.0),
        max(y, 0.0),
        min(x + w, float(size[1])),
        min(y + h, float(size[0])),
    )
    if not (right > left and bottom > top):
        raise Unusable(_OUTSIDE)
    return [left, top, right, bottom]


def _polygons(shape: Sequence[Any], size: Size) -> list[list[float]]:
    """The polygons that cover something: one of fewer than three corners has no area."""
    if not all(_are_numbers(polygon) for polygon in shape):
        raise Unusable("with a polygon that is no list of numbers")
    polygons = [polygon for polygon in shape if len(polygon) >= 2 * _CORNERS]
    if not polygons:
        raise Unusable("with polygons of fewer than three corners alone")
    if any(len(polygon) % 2 for polygon in polygons):
        raise Unusable("with a polygon of an odd number of coordinates")
    farthest = 2 * max(size)  # the decoder goes along the whole outline, however long
    if any(abs(number) > farthest for polygon in polygons for number in polygon):
        raise Unusable("with a polygon far outside of the image")
    return polygons


def _run_lengths(shape: Any, size: Size) -> Any:
    """As they are, where they may be those of the image; compressed ones show only when they are read."""
    if shape is None:
        return None
    if not isinstance(shape, dict) or not isinstance(shape.get("counts"), list | str):
        raise Unusable("with a segmentation that is neither polygons nor run lengths")
    if shape.get("size") != list(size):
        raise Unusable("with run lengths of another size than the image")
    counts = shape["counts"]
    if isinstance(counts, list) and not (
        all(type(n) is int and n >= 0 for n in counts) and sum(counts) == math.prod(size)
    ):
        raise Unusable("with run lengths that do not cover the image")
    return shape


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(n) in (int, float) and math.isfinite(n) for n in values)


def _leave_out_unmasked(kept: Mapping[int, list[Annotation]], left_out: Counter[str]) -> None:
    everything = [each for of_image in kept.values() for each in of_image]
    unmasked = sum(each["shape"] is None for each in everything)
    if not 0 < unmasked <= NO_MASK_SHARE * len(everything):
        return
    left_out["without a mask, which nearly all others have"] += unmasked
    for of_image in kept.values():
        of_image[:] = [each for each in of_image if each["shape"] is not None]
