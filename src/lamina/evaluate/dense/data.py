"""Images of a dense protocol in two parts: one to train on, one to test on, once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from lamina.core.errors import LaminaError
from lamina.data.dense.sources import DenseSource, MapSource, ObjectSource
from lamina.data.sources import images_digest

S = TypeVar("S", MapSource, ObjectSource)

MOST_CHECKED = 500
"""Largest number of images of each part whose labels are checked before anything starts, evenly spread."""


@dataclass(frozen=True)
class TwoParts(Generic[S]):
    """A training and a test part with the same classes.

    Raises:
        LaminaError: for an empty part, or one that does not count what the other does.
    """

    name: str
    train: S
    test: S

    def __post_init__(self) -> None:
        """Refuse data that nothing can be learned from."""
        for part, source in (("training", self.train), ("test", self.test)):
            if not len(source.images):
                raise LaminaError(f"{self.name} has no {part} images")
        if tuple(self.train.classes) != tuple(self.test.classes):
            raise LaminaError(f"the classes of {self.name} differ between training and test images")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; labels count them."""
        return tuple(self.train.classes)

    @cached_property
    def images_digest(self) -> str:
        """A digest that tells these images and their labels from others of the same name."""
        labels = (part.labels_content() for part in (self.train, self.test))
        return images_digest(self.train.images, self.test.images, labels=labels)


class CheckedSource(DenseSource, Generic[S]):
    """A source whose invalid labels count as unreadable."""

    def __init__(self, source: S) -> None:
        self.source: S = source
        self.images, self.classes = source.images, tuple(source.classes)

    def labels_content(self) -> bytes:
        """As of the source."""
        return self.source.labels_content()
