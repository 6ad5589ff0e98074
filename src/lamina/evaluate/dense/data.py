"""Images of a dense protocol in two parts: one to train on, one to test on, once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from lamina.core.errors import LaminaError
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.sources import Source, images_digest

S = TypeVar("S", MapSource, ObjectSource)

MOST_CHECKED = 500
"""Images of each part whose labels are looked at before anything starts, evenly spread."""


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
        """Refuse what nothing can be learned from."""
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
        """By which a result tells these images and their labels from others of the same name."""
        labels = (_labels_content(part) for part in (self.train, self.test))
        return images_digest(self.train.images, self.test.images, labels=labels)


@dataclass(frozen=True)
class CheckedSource(Generic[S]):
    """A source whose invalid labels count as unreadable."""

    source: S

    @property
    def images(self) -> Source:
        """The images."""
        return self.source.images

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what labels count."""
        return self.source.classes

    def labels_content(self) -> bytes:
        """The source's, where it has one."""
        return _labels_content(self.source)


def _labels_content(source: MapSource | ObjectSource) -> bytes:
    """A digest of the labels; nothing of a source that cannot tell."""
    content = getattr(source, "labels_content", None)
    return b"" if content is None else bytes(content())
