"""What sources of segmentation and detection give beside images: a class for each pixel, or objects."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from lamina.core.batch import Objects
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import Source

IGNORE = 255
"""The class of pixels that count neither in training nor in a metric."""


@runtime_checkable
class MapSource(Protocol):
    """A class for each pixel of each image.

    A source may have `labels_content() -> bytes` too: a digest of the maps, by which results tell them from
    others of the same name.
    """

    @property
    def images(self) -> Source:
        """The images; `len(images)` of them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what the maps count, at most 255 of them."""

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """Classes of the pixels of `images.read(i, how)`, `IGNORE` where none; raises `Unreadable`."""


@runtime_checkable
class ObjectSource(Protocol):
    """Boxes and masks of the objects in each image.

    A source may have `has_objects(i) -> bool` too: whether image i shows an object that is no crowd. Of one
    that has not, all objects are read before a training. And `labels_content() -> bytes`, as a `MapSource`.
    """

    @property
    def images(self) -> Source:
        """The images; `len(images)` of them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of what the objects' labels count."""

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """Objects in `images.read(i, how)`, perhaps none; raises `Unreadable`."""
