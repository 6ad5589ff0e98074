"""JPEGs whose header holds nothing unusual, decoded without Pillow, whose look at the header takes a tenth of
the time that a small photograph takes.

A header is plain where it is that of one baseline image of 8 bits in grey or of three components, all of them
in the first scan, and where each segment is one that Pillow takes without an error and that changes neither
the pixels nor which way up they are. Any other file, and any that libjpeg-turbo does not decode without a
warning, is left to the common way. Markers: ITU-T T.81, annex B.
"""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image

from lamina.data.decode import jpeg
from lamina.data.decode.arrays import Stored
from lamina.data.decode.limits import TimedFile, check_fitting, check_memory, check_pixels
from lamina.data.decode.reduction import reduction
from lamina.data.decode.values import to_pixels
from lamina.data.options import Decoding

_BEGIN = b"\xff\xd8\xff"
_HEADER_BYTES = 1 << 16
_SOF, _SOS, _DQT, _APP0, _APP2 = 0xC0, 0xDA, 0xDB, 0xE0, 0xE2
_UNREAD = (0xC4, 0xDD, 0xFE)
"""Tables of Huffman, restart intervals, comments: Pillow leaves them to libjpeg-turbo, or keeps them."""


class Header(NamedTuple):
    """What a plain header says: size in px and number of channels, 1 or 3."""

    height: int
    width: int
    channels: int


def read_plain_jpeg(file: TimedFile, how: Decoding) -> Stored | None:
    """The image of a plain JPEG; None for any other file, which then stands at its first byte.

    Raises:
        Unreadable: where it is too large, or takes too long, as `pillow.read_pillow`.
    """
    if file.peek(len(_BEGIN))[: len(_BEGIN)] != _BEGIN or not jpeg.usable():
        return None
    found = _read(file, how)
    if found is None:
        file.seek(0)
    return found


def _read(file: TimedFile, how: Decoding) -> Stored | None:
    content = file.read(_HEADER_BYTES)
    header = plain_header(content)
    if header is None:
        return None
    height, width, channels = header
    pixels = height * width
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        return None
    check_pixels(height, width, how)
    # Of Pillow's image and the array, were they needed.
    check_memory(pixels * (2 if channels == 1 else 7), how)
    check_fitting(height, width, channels, 1, how)
    if len(content) == _HEADER_BYTES:
        if file.seek(0, io.SEEK_END) > jpeg.most_bytes(height, width):
            return None
        file.seek(_HEADER_BYTES)
        content += file.read()
    reduced = reduction(height, width, 1, how)
    factor = 1 if reduced is None else reduced.factor
    array = jpeg.decode_plain(content, header, how, factor, several_scans=False)
    file.check()
    if array is None:
        return None
    return Stored(to_pixels(array, how, reduced=reduced), "JPEG", "L" if channels == 1 else "RGB")


def plain_header(content: bytes) -> Header | None:
    """What the header of a file that begins with `content` says; None where it is not plain, or is longer."""
    found: Header | None = None
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        kind = content[place + 1]
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        data = content[place + 4 : end]
        if end < place + 4 or end > len(content):
            return None
        if kind == _SOS:
            return found if found is not None and data[:1] == bytes([found.channels]) else None
        if kind == _SOF:
            if found is not None or (found := _frame(data)) is None:
                return None
        elif not _harmless(kind, data):
            return None
        place = end
    return None


def _frame(data: bytes) -> Header | None:
    if len(data) < 6 or data[0] != 8 or data[5] not in (1, 3) or len(data) != 6 + 3 * data[5]:
        return None
    height, width = int.from_bytes(data[1:3], "big"), int.from_bytes(data[3:5], "big")
    return Header(height, width, data[5]) if height and width else None


def _harmless(kind: int, data: bytes) -> bool:
    """Whether Pillow takes a segment, and it says nothing of the pixels but what the decoder reads itself."""
    if kind == _APP0:
        return data.startswith(b"JFIF\0") and len(data) >= 14
    if kind == _APP2:  # colours are as they are stored; other segments of this kind announce more pictures
        return data.startswith(b"ICC_PROFILE\0") and len(data) >= 14
    if kind == _DQT:
        return len(data) % 65 == 0 and all(table < 16 for table in data[::65])
    return kind in _UNREAD
