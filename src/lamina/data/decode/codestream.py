"""The size that a compressed frame states in its own header: JPEG of all kinds, JPEG-LS and JPEG 2000."""

from __future__ import annotations

import struct

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_SIZES = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers (ITU-T T.81, table B.1; T.87 for JPEG-LS); three of that range are of tables."""
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers without a segment behind them."""
_BOXES = 4096
"""Bytes in which the codestream of a JP2 file begins."""


def frame_size(data: bytes) -> tuple[int, int] | None:
    """Height and width in px of an encoded frame; None where it is none of these, or damaged at its head."""
    if data.startswith(_JPEG):
        return _size_of_jpeg(data)
    start = data.find(_JPEG_2000, 0, _BOXES)
    if start < 0 or len(data) < start + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)  # T.800, A.5.1
    return bottom - top, right - left


def _size_of_jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        if marker == 0xFF:  # a byte that fills
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return None
