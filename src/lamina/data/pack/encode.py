"""One image as a pack keeps it: shrunk, or as it is where it is small or its values have more than 8 bits."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from lamina.core.batch import Fault, Remark
from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.decode import Decoded
from lamina.data.decode.notes import remarks_on
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.bad_files import fault_of
from lamina.data.options import Decoding
from lamina.data.pack.source import FILE, FLOAT32, JPEG, UINT8, Layout
from lamina.data.sources import Source

Format = Literal["jpeg", "raw"]
_PILLOW_MODES = {(1, False): "L", (3, False): "RGB", (2, True): "LA", (4, True): "RGBA"}
"""The mode of an image of so many channels, the last of which is alpha or not."""
_ORIENTATION = 0x0112
_BY_OPTIONS = (Reason.PIXEL_TYPE, Reason.NOT_FINITE, Reason.NO_DATA, Reason.CHANNELS)
"""Why files cannot be read that other values of `data.value_range`, `data.nodata` and `data.pages` let be
read."""


class Way(StrEnum):
    """What was done with an image; they are counted."""

    SHRUNK = "shrunk"
    SMALL = "small enough, with their values as they are"
    DEEP = "of more than 8 bits, not shrunk"
    PAGES = "of several pages or frames, not shrunk"
    OTHER = "that are read by options alone (data.value_range, data.nodata), not shrunk"


class Entry(NamedTuple):
    """One image for the pack."""

    content: bytes = b""
    layout: Layout = Layout(FILE)
    way: Way = Way.SHRUNK
    original_bytes: int = 0
    """Of the file, or of the pixels where there is none."""
    remarks: tuple[Remark, ...] = ()
    fault: Fault | None = None
    """Why it cannot be read, where it cannot."""


@dataclass(frozen=True)
class Encoder(Dataset[list[Entry]]):
    """Places of images to entries, in a worker.

    Args:
        sources: views of the same images.
        jobs: of each image the number of a source and the index in it.
        side: the largest short side in px that is kept.
        format: how images that are shrunk are stored.
        quality: of JPEG, 1 to 100.
        how: limits of decoding.
    """

    sources: Sequence[Source]
    jobs: NDArray[np.int64]
    side: int
    format: Format
    quality: int
    how: Decoding

    def __getitems__(self, places: Sequence[int]) -> list[Entry] | LaminaError:
        """Entries of some images; DataLoader calls this by its name. An error for the user is given, not
        raised."""
        entries: list[Entry] = []
        try:
            for number, jobs in groupby(self.jobs[np.asarray(places)].tolist(), itemgetter(0)):
                own = [i for _, i in jobs]
                self.sources[number].read_ahead([*own, *own], self.how)  # for the file, and for its pixels
                entries += [self._entry(number, i) for i in own]
        except LaminaError as error:  # raised in a worker, it would become a traceback in text
            return error
        return entries

    def _entry(self, number: int, i: int) -> Entry:
        source = self.sources[number]
        original = None
        try:
            original = _file_content(source, i)
            found = source.inspect(i, replace(self.how, exif_orientation=False))
            alpha = has_alpha(source, i, found, self.how)
        except Unreadable as error:
            if original is not None and error.reason in _BY_OPTIONS:
                return Entry(original, way=Way.OTHER, original_bytes=len(original))
            return Entry(fault=fault_of(source, 0, i, error))
        entry = self._stored(found, original, alpha)
        n_bytes = found.image.nbytes if original is None else len(original)
        remarks = tuple(remarks_on(i, source.name(i), found.notes))
        return entry._replace(original_bytes=n_bytes, remarks=remarks)

    def _stored(self, found: Decoded, original: bytes | None, alpha: bool) -> Entry:
        deep = found.image.dtype != torch.uint8
        small = min(found.image.shape[1:]) <= self.side
        pages = found.animated and original is not None
        way = Way.PAGES if pages else Way.DEEP if deep else Way.SMALL if small else Way.SHRUNK
        if original is not None and (pages or deep or (small and self.format == "jpeg")):
            plain = found.format == "JPEG" and found.mode in ("L", "RGB") and not (found.notes or pages)
            channels, height, width = found.image.shape
            shape = (height, width, channels)
            return Entry(original, _layout(JPEG, shape, found) if plain else Layout(FILE), way)
        if deep:
            image = found.image.float()
            return _as_pixels(image.permute(1, 2, 0).contiguous().numpy(), FLOAT32, found, alpha, way)
        pixels = found.image.permute(1, 2, 0).contiguous().numpy()
        pixels = pixels if small else shrunk(pixels, alpha, self.side)
        mode = _PILLOW_MODES.get((pixels.shape[2], alpha))
        if self.format == "raw" or mode is None:
            return _as_pixels(pixels, UINT8, found, alpha, way)
        if alpha or small:
            return Entry(_as_file(pixels, mode, found, format="PNG"), way=way)
        content = _as_file(pixels, mode, found, format="JPEG", quality=self.quality, subsampling="4:2:0")
        return Entry(content, _layout(JPEG, pixels.shape, found), way)


def _layout(kind: int, shape: tuple[int, ...], found: Decoded, alpha: bool = False) -> Layout:
    height, width, channels = shape
    return Layout(kind, height, width, channels, int(alpha), found.orientation)


def _as_file(pixels: UInt8[NDArray[np.uint8], "H W C"], mode: str, found: Decoded, **options: Any) -> bytes:
    """The image as a file by Pillow; the orientation stays a tag."""
    exif = Image.Exif()
    if found.orientation != 1:
        exif[_ORIENTATION] = found.orientation
    image, into = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode), io.BytesIO()
    image.save(into, exif=exif, **options)
    return into.getvalue()


def _as_pixels(pixels: NDArray[np.generic], kind: int, found: Decoded, alpha: bool, way: Way) -> Entry:
    return Entry(pixels.tobytes(), _layout(kind, pixels.shape, found, alpha), way)


def _file_content(source: Source, i: int) -> bytes | None:
    """The bytes of the file of an image; None where it is none."""
    file = source.open(i)
    if file is None:
        return None
    try:
        with file:
            return file.read() or b""
    except OSError as error:
        raise Unreadable(Reason.BROKEN, error.strerror or printable(str(error))) from None


def has_alpha(source: Source, i: int, found: Decoded, how: Decoding) -> bool:
    """Whether the last channel of an image is alpha, which only reading it without alpha tells: four channels
    of a satellite are none. Raises `Unreadable`."""
    channels = len(found.image)
    if channels not in (2, 4):
        return False
    try:
        source.read(i, replace(how, in_chans=channels - 1))
    except Unreadable as error:
        if error.reason == Reason.CHANNELS:
            return False
        raise
    return True


def shrunk(
    pixels: UInt8[NDArray[np.uint8], "H W C"], alpha: bool, side: int
) -> UInt8[NDArray[np.uint8], "h w C"]:
    """The image at a short side of `side` px, by Pillow's antialiased bicubic filter; colours count as much
    as they are opaque. It must not be smaller than that."""
    height, width, channels = pixels.shape
    short = min(height, width)
    size = max(1, round(width * side / short)), max(1, round(height * side / short))
    mode = _PILLOW_MODES.get((channels, alpha))
    if mode is not None:
        whole = Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode)
        return np.asarray(whole.resize(size, Image.Resampling.BICUBIC)).reshape(*size[::-1], channels)
    bands = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(channels)]
    return np.stack([np.asarray(band.resize(size, Image.Resampling.BICUBIC)) for band in bands], -1)
