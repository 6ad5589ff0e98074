"""The images of a pack as a source: files and pixels in one blob, read by their places."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Int64
from numpy.typing import NDArray

from lamina.data.archives.files import part_of
from lamina.data.archives.spans import SpanSource
from lamina.data.decode.arrays import Pixels
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import Decoded, decode, image_size
from lamina.data.decode.jpeg import decode_plain
from lamina.data.decode.limits import Stream, check_fitting, check_pixels
from lamina.data.decode.orientation import turn
from lamina.data.decode.reduction import reduction
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import Source

FILE, UINT8, FLOAT32, JPEG = range(4)
"""How an image is stored: as the bytes of a file, as pixels (H, W, C) of that type, or as a file of JPEG in
grey or RGB, of which all is known that its header says."""
ITEM_BYTES = {UINT8: 1, FLOAT32: 4}
_DTYPES = {UINT8: np.uint8, FLOAT32: np.float32}
_NAMES = {UINT8: "uint8", FLOAT32: "float32"}


class Layout(NamedTuple):
    """How one image is stored. Of a FILE only `kind` counts."""

    kind: int
    """FILE, UINT8, FLOAT32 or JPEG."""
    height: int = 0
    """Of the pixels as they are stored, before they are turned by `orientation`."""
    width: int = 0
    channels: int = 0
    alpha: int = 0
    """1 where the last channel is alpha."""
    orientation: int = 1
    """As of EXIF, 1 to 8."""


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
        names, labels, class_names, multi_labels, notes, no_labels: as `Source`.
    """

    def __init__(
        self,
        blob: str,
        columns: Columns,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        multi_labels: Bool[NDArray[np.bool_], "N K"] | None = None,
        notes: Sequence[str] = (),
        no_labels: str = "",
    ) -> None:
        super().__init__(
            names, labels, class_names, multi_labels=multi_labels, notes=notes, no_labels=no_labels
        )
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
        height, width, channels = layout[1:4]
        check_pixels(height, width, how)
        check_fitting(height, width, channels, ITEM_BYTES.get(layout.kind, 1), how)
        if layout.kind == JPEG:
            return self._decoded(i, layout, how)
        scratch = how.scratch if layout.kind == UINT8 else None
        pixels = (
            np.empty(layout[1:4], _DTYPES[layout.kind]) if scratch is None else scratch.array(*layout[1:4])
        )
        self._read(i, pixels.reshape(-1).view(np.uint8).data)
        found = to_pixels(pixels, how, alpha=bool(layout.alpha))
        return _as_asked(found, layout, how, "pixels", _NAMES[layout.kind])

    def _decoded(self, i: int, layout: Layout, how: Decoding) -> Decoded:
        """A JPEG whose header says what the index says, so that it is not looked at; where decoding shows
        anything else, the image is decoded as any other."""
        content = bytearray(int(self.blob.spans[i, 2]))
        self._read(i, memoryview(content))
        reduced = reduction(layout.height, layout.width, layout.orientation, how)
        array = decode_plain(bytes(content), layout[1:4], how, 1 if reduced is None else reduced.factor)
        if array is None:
            return decode(io.BytesIO(content), how)
        found = to_pixels(array, how, reduced=reduced)
        return _as_asked(found, layout, how, "JPEG", "L" if layout.channels == 1 else "RGB")

    def _read(self, i: int, into: memoryview) -> None:
        """The bytes of image i, all at once: in pieces, as decoders read, they take several times as long."""
        _, first, size = self.blob.spans[i].tolist()
        done = 0
        try:
            with part_of(self.blob.files[0], self.blob.states[0], first, size) as file:
                while done < size and (n := file.readinto(into[done:])):
                    done += n
        except OSError as error:
            raise Unreadable(Reason.BROKEN, error.strerror or str(error)) from None
        if done < size:
            raise Unreadable(Reason.BROKEN, "the file around it ends before it")

    def size(self, i: int, how: Decoding = AS_STORED) -> tuple[int, int]:
        """Height and width in pixels of `read(i, how)`, from the index or the header; raises `Unreadable`."""
        layout = self.layout(i)
        if layout.kind == FILE:
            return image_size(self.blob.open(i), how)
        turned = how.exif_orientation and layout.orientation >= 5
        return (layout.width, layout.height) if turned else (layout.height, layout.width)

    def open(self, i: int) -> Stream | None:
        """The bytes of the file of image i; None where it is kept as pixels. Raises `Unreadable`."""
        return self.blob.open(i) if self.layout(i).kind in (FILE, JPEG) else None

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of the blob, and of where the images lie in it."""
        return self.blob.fingerprint(indices)

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the images and a sample of their bytes."""
        return self.blob.content(indices)


def _as_asked(found: Pixels, layout: Layout, how: Decoding, form: str, mode: str) -> Decoded:
    """Stored pixels, turned and with the channels that are wanted."""
    image = turn(found.image, layout.orientation) if how.exif_orientation else found.image
    image = fit_channels(image, how.in_chans, found.alpha, how.alpha_background)
    return Decoded(image, form, mode, layout.orientation, notes=found.notes, reduced=found.reduced)
