"""Labels of pixels and objects whose images are read as the path says (`data.reading`)."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from lamina.core.batch import Objects
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.options import AS_STORED, Decoding
from lamina.data.read_as import ReadAs
from lamina.data.reading import Reading


class MapsReadAs(MapSource):
    """The maps of another source, with its images read as the path says."""

    def __init__(self, source: MapSource, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.images, self.classes = ReadAs(source.images, reading), source.classes

    def labels_content(self) -> bytes:
        """As of the source."""
        return self.source.labels_content()

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """As of the source."""
        return self.source.read_map(i, self.reading.applied(how))


class ObjectsReadAs(ObjectSource):
    """The objects of another source, with its images read as the path says."""

    def __init__(self, source: ObjectSource, reading: Reading) -> None:
        self.source, self.reading = source, reading
        self.images, self.classes = ReadAs(source.images, reading), source.classes
        self.has_masks, self.left_out = source.has_masks, source.left_out

    def labels_content(self) -> bytes:
        """As of the source."""
        return self.source.labels_content()

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """As of the source."""
        return self.source.read_objects(i, self.reading.applied(how))

    def has_objects(self, i: int) -> bool:
        """As of the source."""
        return self.source.has_objects(i)
