"""What sources of segmentation and detection give beside images: a class for each pixel, or objects.

One of your own derives from `MapSource` or `ObjectSource`, sets `images` and `classes`, and writes `read_map`
or `read_objects`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType

from jaxtyping import UInt8
from torch import Tensor

from lamina.core.batch import Objects
from lamina.data.decode.unreadable import Unreadable
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import Source

IGNORE = 255
"""The class of pixels that count neither in training nor in a metric."""


class DenseSource(ABC):
    """Images with labels of their pixels or of their objects."""

    images: Source
    """The images; `len(images)` of them."""
    classes: tuple[str, ...]
    """Names of what the labels count."""

    def labels_content(self) -> bytes:
        """A digest of the labels, by which results tell them from others of the same name; b"" where a source
        cannot tell."""
        return b""


class MapSource(DenseSource):
    """A class for each pixel of each image; there are at most 255 classes."""

    @abstractmethod
    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """Classes of the pixels of `images.read(i, how)`, `IGNORE` where none; raises `Unreadable`."""


class ObjectSource(DenseSource):
    """Boxes and masks of the objects in each image."""

    has_masks: bool = True
    """Whether all objects have masks of their own, and not only boxes."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """How many objects cannot be used and are left out, by the reason."""

    @abstractmethod
    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """Objects in `images.read(i, how)`, perhaps none; raises `Unreadable`."""

    def has_objects(self, i: int) -> bool:
        """Whether image i shows an object that is no crowd, or cannot be read.

        Here it reads the objects, before a training those of all images; a source that knows overrides it.
        """
        try:
            return bool((~self.read_objects(i).crowd).any())
        except Unreadable:
            return True
