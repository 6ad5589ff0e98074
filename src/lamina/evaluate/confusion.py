"""The confusion matrix of test images, and the recall and precision of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from torch import Tensor

BALANCED = "balanced accuracy"
MAJORITY = "share of the largest class"
"""Names of both numbers among a score's others."""


class ClassAccuracy(NamedTuple):
    """One class among the test images; shares in [0, 1], None where there is nothing to take a share of."""

    name: str
    images: int
    recall: float | None
    """Share of its images that were given this class."""
    precision: float | None
    """Share of the images that were given this class and have it."""


@dataclass(frozen=True)
class Confusion:
    """How many test images of each true class were given each class.

    `counts` are (true class, given class, images) without zeros, ascending; classes are places in `classes`.
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]

    @classmethod
    def of(
        cls, labels: Int64[Tensor, "n"], predicted: Int64[Tensor, "n"], classes: Sequence[str]
    ) -> Confusion:
        """From true and predicted classes of the same images."""
        cells = labels.numpy() * len(classes) + predicted.numpy()
        places, images = np.unique(cells, return_counts=True)
        return cls(
            tuple(classes),
            tuple(
                (*divmod(int(place), len(classes)), int(n)) for place, n in zip(places, images, strict=True)
            ),
        )

    @classmethod
    def summed(cls, found: Sequence[Confusion]) -> Confusion | None:
        """The sum of several matrices over the same images; None where there is none."""
        if not found:
            return None
        total: dict[tuple[int, int], int] = {}
        for true, given, n in (count for each in found for count in each.counts):
            total[true, given] = total.get((true, given), 0) + n
        return Confusion(found[0].classes, tuple((*cell, n) for cell, n in sorted(total.items())))

    @classmethod
    def read(cls, content: Mapping[str, Any] | None) -> Confusion | None:
        """From JSON, as `to_json` gives it; None where a result has none."""
        if content is None:
            return None
        counts = tuple((int(true), int(given), int(n)) for true, given, n in content["counts"])
        return Confusion(tuple(str(name) for name in content["classes"]), counts)

    def to_json(self) -> dict[str, Any]:
        """Classes, counts, and what follows for each class, in plain lists."""
        names = ("class", "images", "recall", "precision")
        return {
            "classes": list(self.classes),
            "counts": [list(count) for count in self.counts],
            "per_class": [dict(zip(names, found, strict=True)) for found in self.per_class],
        }

    @cached_property
    def per_class(self) -> tuple[ClassAccuracy, ...]:
        """Images, recall and precision of every class."""
        images, given, right = ([0] * len(self.classes) for _ in range(3))
        for true, predicted, n in self.counts:
            images[true] += n
            given[predicted] += n
            right[true] += n if true == predicted else 0
        return tuple(
            ClassAccuracy(name, n, r / n if n else None, r / g if g else None)
            for name, n, g, r in zip(self.classes, images, given, right, strict=True)
        )

    @property
    def balanced(self) -> float:
        """The mean recall of the classes that have test images: balanced accuracy, 1 / classes by chance."""
        recalls = [found.recall for found in self.per_class if found.recall is not None]
        return sum(recalls) / len(recalls)

    @property
    def majority(self) -> float:
        """The share of the largest class among the test images: the accuracy of giving it to all of them."""
        images = [found.images for found in self.per_class]
        return max(images) / sum(images)

    def majority_note(self, of: str = "top-1") -> tuple[str, ...]:
        """A note where an accuracy, named `of`, is no higher than that of one class given to all images."""
        right = sum(n for true, given, n in self.counts if true == given)
        if right > max(found.images for found in self.per_class):
            return ()
        share = f"one class has {100 * self.majority:.1f} % of the test images"
        return (f"{share}, and {of} is not above that: look at the balanced accuracy",)

    @property
    def numbers(self) -> dict[str, float]:
        """Balanced accuracy and share of the largest class, by name."""
        return {BALANCED: self.balanced, MAJORITY: self.majority}
