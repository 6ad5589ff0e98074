"""The images of a pack as a source: files and pixels in one blob, read by their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from numpy.typing import NDArray

from lamina.data.archives.spans import SpanSource
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import Decoded, decode, image_size
from lamina.data.decode.limits import Stream, check_fitting, check_pixels
from lamina.data.decode.orientation import turn
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import Source

FILE, UINT8, FLOAT32 = range(3)
"""How an image is stored: as the bytes of a file, or as pixels (H, W, C) of that type."""
ITEM_BYTES = {UINT8: 1, FLOAT32: 4}
_DTYPES = {UINT8: np.uint8, FLOAT32: np.float32}


class Layout(NamedTuple):
    """How one image is stored. Of a file only `kind` counts."""

    kind: int
    """FILE, UINT8 or FLOAT32."""
    height: int = 0
    """Of the pixels as they are stored, before they are turned by `orientation`."""
    width: int = 0
    channels: int = 0
    alpha: int = 0
    """1 where the last channel is alpha."""
    orientation: int = 1
    """As of EXIF, 1 to 8."""

    @property
    def n_bytes(self) -> int:
        """Of the pixels."""
        return self.height * self.width * self.channels * ITEM_BYTES[self.kind]


@dataclass(frozen=True)
class Columns:
    """What is known of each image, in arrays: they are copied into worker processes as they are."""

    spans: Int64[NDArray[np.int64], "N 2"]
    """First byte in the blob, and number of bytes."""
    layouts: Int32[NDArray[np.int32], "N 6"]
    """The fields of `Layout`."""

    def take(self, indices: Int64[NDArray[np.int64], "n"]) -> Columns:
        """Some of the images."""
        return Columns(self.spans[indices], self.layouts[indices])


class PackedSource(Source):
    """Images of a pack.

    What is kept as a file is decoded like one. Pixels are read into memory of their own, not mapped: a file
    that becomes shorter while it is mapped ends the process that reads it.

    Args:
        blob: path of the file that holds all images.
        columns: where and how they are stored in it.
        names, labels, class_names, notes, no_labels: as `Source`.
    """

    def __init__(
        self,
        blob: str,
        columns: Columns,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        spans = np.concatenate([np.zeros((len(columns.spans), 1), np.int64), columns.spans], 1)
        self.blob = SpanSource([blob], spans, ())
        self.layouts = columns.layouts

    def layout(self, i: int) -> Layout:
        """How image i is stored."""
        return Layout(*self.layouts[i].tolist())

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i and what its file says about it; raises `Unreadable`."""
        layout = self.layout(i)
        if layout.kind == FILE:
            return decode(self.blob.open(i), how)
        check_pixels(layout.height, layout.width, how)
        check_fitting(layout.height, layout.width, layout.channels, ITEM_BYTES[layout.kind], how)
        with self.blob.open(i) as window:
            pixels = _read(window, layout, how)
        found = to_pixels(pixels, how, alpha=bool(layout.alpha))
        image = turn(found.image, layout.orientation) if how.exif_orientation else found.image
        image = fit_channels(image, how.in_chans, found.alpha, how.alpha_background)
        return Decoded(image, "pixels", str(pixels.dtype), layout.orientation, notes=found.notes)

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """Height and width in pixels of `read(i, how)`, from the index or the header; raises `Unreadable`."""
        layout = self.layout(i)
        if layout.kind == FILE:
            return image_size(self.blob.open(i), how)
        turned = how.exif_orientation and layout.orientation >= 5
        return (layout.width, layout.height) if turned else (layout.height, layout.width)

    def open(self, i: int) -> Stream | None:
        """The bytes of the file of image i; None where it is kept as pixels. Raises `Unreadable`."""
        return self.blob.open(i) if self.layout(i).kind == FILE else None

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of the blob, and of where the images lie in it."""
        return self.blob.fingerprint(indices)

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the images and a sample of their bytes."""
        return self.blob.content(indices)


def _read(window: Stream, layout: Layout, how: Decoding) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Pixels (H, W, C)."""
    shape = layout.height, layout.width, layout.channels
    scratch = how.scratch if layout.kind == UINT8 else None
    pixels = np.empty(shape, _DTYPES[layout.kind]) if scratch is None else scratch.array(*shape)
    into: UInt8[NDArray[np.uint8], "n"] = pixels.reshape(-1).view(np.uint8)
    done = 0
    try:
        while done < len(into) and (n := window.readinto(into[done:].data)):
            done += n
    except OSError as error:
        raise Unreadable(Reason.BROKEN, error.strerror or str(error)) from None
    if done < len(into):
        raise Unreadable(Reason.BROKEN, "the file around it ends before it")
    return pixels
