"""Images with objects, in two parts: one to train on, one to test on, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.core.batch import Objects
from lamina.core.errors import LaminaError
from lamina.core.text import counted_each, printable
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.class_counts import check_counts, count_objects
from lamina.data.dense.open import open_objects
from lamina.data.dense.sources import ObjectSource
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import Subset
from lamina.evaluate.dense.data import MOST_CHECKED, CheckedSource, TwoParts


@dataclass(frozen=True)
class DetectData(TwoParts[ObjectSource]):
    """A training and a test part with the same classes.

    Raises:
        LaminaError: as `TwoParts`, or for parts without objects or classes.
    """

    def __post_init__(self) -> None:
        """Refuse data that nothing can be learned from."""
        for part, source in (("training", self.train), ("test", self.test)):
            if not isinstance(source, ObjectSource):
                raise LaminaError(f"the {part} part of {self.name} has no objects; give boxes, as in COCO")
        super().__post_init__()
        if not self.classes:
            raise LaminaError(f"{self.name} has no classes; it takes one or more")

    @property
    def has_masks(self) -> bool:
        """Whether all objects have masks of their own, and not only boxes."""
        return self.train.has_masks and self.test.has_masks


class CheckedObjects(CheckedSource[ObjectSource], ObjectSource):
    """An `ObjectSource` in which objects of a class that there is not, or with a box that is none, cannot be
    read."""

    def __init__(self, source: ObjectSource) -> None:
        super().__init__(source)
        self.has_masks, self.left_out = source.has_masks, source.left_out

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """Objects of image i; raises `Unreadable`, also where they are invalid."""
        found = self.source.read_objects(i, how)
        odd = [label for label in found.labels.tolist() if not 0 <= label < len(self.classes)]
        if odd:
            raise Unreadable(Reason.LABELS, f"class {odd[0]} of {len(self.classes)}, counted from 0")
        empty = ~(found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
        if bool(empty.any()):
            raise Unreadable(Reason.LABELS, f"an empty box, {found.boxes[empty][0].tolist()}")
        return found


class WithObjects(CheckedObjects):
    """The images of an `ObjectSource` that show objects to learn."""

    def __init__(self, source: ObjectSource, indices: Sequence[int]) -> None:
        super().__init__(source)
        self.indices = indices
        self.images = Subset(source.images, indices)
        self.not_chosen = len(source.images) - len(indices)

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """As `CheckedObjects`, of the i-th that was chosen."""
        return super().read_objects(self.indices[i], how)


def open_detect_data(data: str | Path | DetectData) -> DetectData:
    """Both parts of `data`, as `lamina.data.dense.open.open_objects` finds them; of the training part the
    images with objects that are no crowds, as detectron2 and ViTDet choose them.

    Raises:
        LaminaError: where there is no such data, or as `DetectData`.
    """
    if not isinstance(data, DetectData):
        train, test = (open_objects(data, part) for part in ("train", "val"))
        data = DetectData(printable(str(data)), train, test)
    if isinstance(data.train, WithObjects):  # opened before
        return data
    indices = [i for i in range(len(data.train.images)) if data.train.has_objects(i)]
    # Where there are none, `label_notes` says so.
    train = WithObjects(data.train, indices) if indices else CheckedObjects(data.train)
    return DetectData(data.name, train, CheckedObjects(data.test))


def label_notes(data: DetectData) -> tuple[str, ...]:
    """Notes on unusual objects; of each part `MOST_CHECKED` images at most are read.

    Raises:
        LaminaError: where none can be read, or there are no objects.
    """
    counts = [count_objects(part, MOST_CHECKED) for part in (data.train, data.test)]
    notes = list(check_counts(counts[0], counts[1], fewest=1))
    for part, source in (("training", data.train), ("test", data.test)):
        if n := sum(source.left_out.values()):
            reasons = counted_each(source.left_out)
            notes.append(f"{n} annotations of the {part} part are left out: {reasons}")
    if isinstance(data.train, WithObjects) and data.train.not_chosen:
        notes.append(f"training images without objects to learn are left out: {data.train.not_chosen}")
    if not data.has_masks:
        notes.append("not all objects have masks: boxes alone are learned and evaluated")
    return tuple(notes)
