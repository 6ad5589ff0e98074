"""Images with a class for each pixel, in two parts: one to train on, one to test on, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from lamina.data import Source, Unreadable, printable
from lamina.data.counting import check_counts, count_pixels
from lamina.data.dense import IGNORE, MapSource
from lamina.data.opening_dense import open_maps
from lamina.data.options import AS_STORED, Decoding
from lamina.data.unreadable import Reason
from lamina.errors import LaminaError

MOST_LOOKED_AT = 500
"""Maps of each part that are looked at before anything starts, evenly spread."""


@dataclass(frozen=True)
class SegmentData:
    """A training and a test part with the same classes.

    Raises:
        LaminaError: for an empty part, or one that does not count what the other does.
    """

    name: str
    train: MapSource
    test: MapSource

    def __post_init__(self) -> None:
        """Refuse what nothing can be learned from."""
        for part, source in (("training", self.train), ("test", self.test)):
            if not len(source.images):
                raise LaminaError(f"{self.name} has no {part} images")
        if tuple(self.train.classes) != tuple(self.test.classes):
            raise LaminaError(f"the classes of {self.name} differ between training and test images")
        if len(self.classes) < 2:
            raise LaminaError(f"{self.name} has {len(self.classes)} class; it takes two or more")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; maps count them."""
        return tuple(self.train.classes)


@dataclass(frozen=True)
class Checked:
    """A `MapSource` in which a map with a class that there is not cannot be read."""

    source: MapSource

    @property
    def images(self) -> Source:
        """The images."""
        return self.source.images

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what the maps count."""
        return self.source.classes

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """Classes of image i; raises `Unreadable`, also for a class out of range."""
        found = self.source.read_map(i, how)
        counted = found[found != IGNORE]
        if counted.numel() and int(counted.max()) >= len(self.classes):
            detail = f"class {int(counted.max())} of {len(self.classes)}, counted from 0"
            raise Unreadable(Reason.LABELS, detail)
        return found


def open_segment_data(data: str | Path | SegmentData) -> SegmentData:
    """Both parts of `data`, as `lamina.data.opening_dense.open_maps` finds them.

    Raises:
        LaminaError: where there is no such data, or as `SegmentData`.
    """
    if isinstance(data, SegmentData):
        return SegmentData(data.name, Checked(data.train), Checked(data.test))
    train, test = (Checked(open_maps(data, part)) for part in ("train", "val"))
    return SegmentData(printable(str(data)), train, test)


def look(data: SegmentData) -> tuple[str, ...]:
    """What is odd in the maps, in sentences; of each part `MOST_LOOKED_AT` at most are read.

    Raises:
        LaminaError: where none can be read, nothing is labelled, or one class alone.
    """
    return check_counts(
        count_pixels(data.train, MOST_LOOKED_AT), count_pixels(data.test, MOST_LOOKED_AT), fewest=2
    )
