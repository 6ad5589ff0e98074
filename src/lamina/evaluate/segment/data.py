"""Images with a class for each pixel, in two parts: one to train on, one to test on, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.class_counts import check_counts, count_pixels
from lamina.data.dense.open import open_maps
from lamina.data.dense.sources import IGNORE, MapSource
from lamina.data.options import AS_STORED, Decoding
from lamina.evaluate.dense.data import MOST_CHECKED, CheckedSource, TwoParts


@dataclass(frozen=True)
class SegmentData(TwoParts[MapSource]):
    """A training and a test part with the same classes.

    Raises:
        LaminaError: as `TwoParts`, or for fewer than two classes.
    """

    def __post_init__(self) -> None:
        """Refuse data that nothing can be learned from."""
        super().__post_init__()
        if len(self.classes) < 2:
            raise LaminaError(f"{self.name} has {len(self.classes)} class; it takes two or more")


class CheckedMaps(CheckedSource[MapSource], MapSource):
    """A `MapSource` in which a map with a class that there is not cannot be read."""

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """Classes of image i; raises `Unreadable`, also for a class out of range."""
        found = self.source.read_map(i, how)
        counted = found[found != IGNORE]
        if counted.numel() and int(counted.max()) >= len(self.classes):
            detail = f"class {int(counted.max())} of {len(self.classes)}, counted from 0"
            raise Unreadable(Reason.LABELS, detail)
        return found


def open_segment_data(data: str | Path | SegmentData) -> SegmentData:
    """Both parts of `data`, as `lamina.data.dense.open.open_maps` finds them.

    Raises:
        LaminaError: where there is no such data, or as `SegmentData`.
    """
    if isinstance(data, SegmentData):
        return SegmentData(data.name, CheckedMaps(data.train), CheckedMaps(data.test))
    train, test = (CheckedMaps(open_maps(data, part)) for part in ("train", "val"))
    return SegmentData(printable(str(data)), train, test)


def label_notes(data: SegmentData) -> tuple[str, ...]:
    """Notes on unusual maps; of each part `MOST_CHECKED` at most are read.

    Raises:
        LaminaError: where none can be read, nothing is labelled, or one class alone.
    """
    return check_counts(
        count_pixels(data.train, MOST_CHECKED), count_pixels(data.test, MOST_CHECKED), fewest=2
    )
