"""JPEG through simplejpeg, a thin layer over libjpeg-turbo: the pixels that Pillow gives, in less time.

Pillow has read the header before, and has refused what it shows to be wrong, or the header holds nothing
that Pillow would refuse (`plain_jpeg`). A file about which libjpeg-turbo even warns is left to Pillow,
so that what can be read, and why not, is the same with and without simplejpeg. It cannot be stopped: what
could take longer than allowed is left to Pillow too.
"""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from lamina.data.decode.limits import TimedFile
from lamina.data.decode.scratch import Scratch
from lamina.data.options import Decoding

try:
    import simplejpeg
except ImportError:  # no wheel for this system: Pillow decodes alone
    simplejpeg = None

_CHANNELS = {"L": 1, "RGB": 3}
_PIXELS_PER_SECOND = 1e7
"""Fewer than are decoded in a scan of any kind; several times as many are usual."""
_SCAN = b"\xff\xda"
_LEAST_BYTES = 1 << 20


def read_jpeg(
    im: ImageFile, file: TimedFile, how: Decoding, several_scans: bool, factor: int = 1
) -> NDArray[Any] | None:
    """All pixels as (H, W) or (H, W, 3), uint8; None where Pillow has to decode.

    Args:
        im: as Pillow opened it from `file`, not loaded.
        file: all bytes; where it stands afterwards is the same as before.
        several_scans: whether the image may be stored in more than one scan.
        factor: 1, 2, 4 or 8; height and width of the result are those of the image over it, rounded up.
    """
    channels = _CHANNELS.get(im.mode, 0)
    if channels != getattr(im, "layers", 0) or not usable():
        return None
    here = file.tell()
    try:
        if file.seek(0, io.SEEK_END) > most_bytes(im.height, im.width):
            return None
        file.seek(0)
        found = decode_plain(file.read(), (im.height, im.width, channels), how, factor, several_scans)
        file.check()
        return found
    finally:
        file.seek(here)


def decode_plain(
    content: bytes,
    shape: tuple[int, ...],
    how: Decoding,
    factor: int = 1,
    several_scans: bool = True,
) -> NDArray[Any] | None:
    """As `read_jpeg`, of the bytes of a file whose header has `shape`: height, width, channels."""
    height, width, channels = shape
    if len(content) > most_bytes(height, width) or not usable():
        return None
    scans = content.count(_SCAN) if several_scans else 1
    if height * width * scans > how.max_decode_seconds * _PIXELS_PER_SECOND:
        return None
    size = -(-height // factor), -(-width // factor)
    return _decoded(content, "GRAY" if channels == 1 else "RGB", size, how.scratch)


def most_bytes(height: int, width: int) -> int:
    """The longest file that is read at once: the memory that Pillow's own image would take."""
    return max(_LEAST_BYTES, 4 * height * width)


def _decoded(
    content: bytes, colour: str, size: tuple[int, int], scratch: Scratch | None = None
) -> NDArray[Any] | None:
    least = {"min_height": size[0], "min_width": size[1]}
    memory = None if scratch is None else scratch.array(*size, 1 if colour == "GRAY" else 3)
    try:
        found = simplejpeg.decode_jpeg(content, colour, **least, buffer=memory)
    except ValueError:  # damaged, or odd
        return None
    if found.shape[:2] != size:
        return None
    return np.asarray(found[..., 0] if colour == "GRAY" else found)


@cache
def usable() -> bool:
    """Whether simplejpeg is installed and gives what Pillow gives: each may be built with another libjpeg.

    It is tried on noise, in grey and in colour at full, half and quarter resolution of the colours.
    """
    if simplejpeg is None:
        return False
    noise = np.random.default_rng(0).integers(0, 256, (45, 39, 3), dtype=np.uint8)
    for colour, subsampling in (("GRAY", 0), ("RGB", 0), ("RGB", 1), ("RGB", 2)):
        stream = io.BytesIO()
        picture = Image.fromarray(noise[..., 0] if colour == "GRAY" else noise)
        picture.save(stream, "JPEG", quality=90, subsampling=subsampling)
        for factor in (1, 2):
            height, width = -(-45 // factor), -(-39 // factor)
            found = _decoded(stream.getvalue(), colour, (height, width))
            with Image.open(stream) as im:
                im.draft(im.mode, (39 // factor, 45 // factor))
                if found is None or not np.array_equal(found, np.asarray(im)):
                    return False
    return True
