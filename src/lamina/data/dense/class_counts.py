"""How often each class is there: pixels of maps, objects of images; and what two parts cannot be used for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.decode.unreadable import Unreadable
from lamina.data.dense.sources import IGNORE, MapSource, ObjectSource


@dataclass(frozen=True)
class ClassCounts:
    """What some images hold of each class."""

    classes: tuple[str, ...]
    total: tuple[int, ...]
    """Pixels, or objects, of each class."""
    images: tuple[int, ...]
    """Images with some of each class."""
    seen: int
    """Images that were looked at."""
    unreadable: int
    """Images that could not be read."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of each class in all that was counted."""
        return tuple(n / max(sum(self.total), 1) for n in self.total)

    @property
    def present(self) -> tuple[str, ...]:
        """The classes that were seen."""
        return tuple(name for name, n in zip(self.classes, self.total, strict=True) if n)


def count_pixels(source: MapSource, most: int | None = None) -> ClassCounts:
    """Pixels of each class; `most`: of so many maps at most, evenly spread. `IGNORE` is not counted."""

    def count(i: int) -> Int64[Tensor, "classes"]:
        found = torch.bincount(source.read_map(i).flatten().long(), minlength=IGNORE + 1)
        return found[: len(source.classes)]

    return _count(count, source.classes, len(source.images), most)


def count_objects(source: ObjectSource, most: int | None = None) -> ClassCounts:
    """Objects of each class, crowds aside; `most`: of so many images at most, evenly spread."""

    def count(i: int) -> Int64[Tensor, "classes"]:
        found = source.read_objects(i)
        return torch.bincount(found.labels[~found.crowd], minlength=len(source.classes))

    return _count(count, source.classes, len(source.images), most)


def _count(
    count: Callable[[int], Int64[Tensor, "classes"]], classes: tuple[str, ...], images: int, most: int | None
) -> ClassCounts:
    looked_at = min(images, most or images)
    total, present = (torch.zeros(len(classes), dtype=torch.int64) for _ in range(2))
    unreadable = 0
    for k in range(looked_at):
        try:
            found = count(k * images // looked_at)
        except Unreadable:
            unreadable += 1
            continue
        total += found
        present += found > 0
    return ClassCounts(classes, tuple(total.tolist()), tuple(present.tolist()), looked_at, unreadable)


def check_counts(train: ClassCounts, val: ClassCounts, fewest: int) -> tuple[str, ...]:
    """Sentences on what is odd in two parts, but can be used.

    `fewest` is how many classes there must be: 2 for classes of pixels, 1 for objects.

    Raises:
        LaminaError: if the parts count different classes, or one of them holds too few.
    """
    if train.classes != val.classes:
        raise LaminaError("training and validation name different classes; give both the same")
    for part, counts in (("training", train), ("validation", val)):
        if not sum(counts.total):
            raise LaminaError(f"nothing is labelled in the {part} part ({counts.unreadable} unreadable)")
        if len(counts.present) < fewest:
            only = printable(counts.present[0])
            raise LaminaError(
                f"the {part} part holds one class alone, {only!r}; at least {fewest} are needed"
            )
    unseen = [name for name in val.present if name not in train.present]
    absent = [name for name in train.present if name not in val.present]
    return tuple(
        f"{counted(len(names), 'class', 'classes')} in {there} alone, {printable(names[0])!r} among them"
        for names, there in ((unseen, "validation"), (absent, "training"))
        if names
    )
