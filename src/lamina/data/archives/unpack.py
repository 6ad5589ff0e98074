"""One member of a zip file as the bytes that were packed, in memory and within the limits of an image."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable

from lamina.data.archives.members import PLAIN, Place
from lamina.data.archives.window import Window
from lamina.data.decode.limits import Stream, check_memory
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import Decoding

Part = Callable[[int, int], Stream]
"""Opens the bytes of an archive from a first one on, at most so many."""

_HEADER = struct.Struct("<4s5H3L2H")
"""The member's own header: signature, version, flags, method, time, date, CRC, two sizes, and the lengths of
the name and of the extra field, which lie between it and the bytes."""
HEADER_BYTES = _HEADER.size
_USUAL_NAME_BYTES = 512
"""So much is read together with the bytes; more is read by itself."""
_ENCRYPTED = 1 << 16
_FLAGS = 0x1 | 0x20 | 0x40 | 0x2000
"""Encrypted, a patch, strongly encrypted, a directory that is encrypted."""
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd", 99: "AES"}
_PIECE = 1 << 20


def packing_of(info: zipfile.ZipInfo) -> int:
    """How a member is packed, as one number: its method, and whether it is encrypted."""
    return info.compress_type + _ENCRYPTED * bool(info.flag_bits & _FLAGS)


def why_not_read(packing: int) -> str:
    """What it is that makes a member one that cannot be read, "encrypted" or "compressed by ..."; "" for
    those that can."""
    if packing >= _ENCRYPTED:
        return "encrypted"
    if packing in (PLAIN, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return ""
    return f"compressed by {_METHODS.get(packing, f'an unknown method, number {packing}')}"


def unpack(part: Part, place: Place, how: Decoding) -> Stream:
    """The bytes of an image in an archive.

    What is stored as it is is read from the archive; what is compressed is decompressed into memory, up to
    the size that the archive states, which `how` limits, and its checksum is compared.

    Raises:
        Unreadable: for a member that is not read, that would become too large, or is not what the archive
            states.
    """
    if place.packing == PLAIN:
        return part(place.first, place.stored)
    if why := why_not_read(place.packing):
        raise Unreadable(Reason.PACKED, why)
    if place.packing == zipfile.ZIP_STORED:
        if place.size != place.stored:
            raise _broken(f"{place.stored} bytes are stored, and {place.size} stated")
        return _data(part, place)
    check_memory(place.size, how)
    with _data(part, place) as packed:
        return _inflated(packed, place)


def _data(part: Part, place: Place) -> Window:
    """What lies behind the member's own header."""
    whole = part(place.first, HEADER_BYTES + _USUAL_NAME_BYTES + place.stored)
    header = whole.read(HEADER_BYTES) or b""
    if len(header) < HEADER_BYTES or not header.startswith(b"PK\3\4"):
        whole.close()
        raise _broken("no member begins at its place")
    _, _, flags, method, *_, name, extra = _HEADER.unpack(header)
    if flags & _FLAGS or method != place.packing:
        whole.close()
        raise _broken("its own header and the directory differ")
    before = HEADER_BYTES + name + extra
    if name + extra > _USUAL_NAME_BYTES:
        whole.close()
        whole, before = part(place.first + before, place.stored), 0
    if whole.seek(0, os.SEEK_END) < before + place.stored:
        whole.close()
        raise _broken("the archive ends before it")
    return Window(whole, before, place.stored)


def _inflated(packed: Stream, place: Place) -> io.BytesIO:
    decoder, found, left, crc = zlib.decompressobj(-zlib.MAX_WBITS), io.BytesIO(), place.size, 0
    while not decoder.eof:
        piece = decoder.unconsumed_tail or packed.read(_PIECE)
        if not piece:
            raise _broken("the compressed bytes end too early")
        try:
            plain = decoder.decompress(piece, left + 1)
        except zlib.error as error:
            raise _broken(str(error)) from None
        left -= len(plain)
        if left < 0:
            raise _broken(f"it unpacks to more than the {place.size} bytes that are stated")
        crc = zlib.crc32(plain, crc)
        found.write(plain)
    if left or crc != place.crc:
        raise _broken("its size or checksum is not the one that is stated")
    found.seek(0)
    return found


def _broken(why: str) -> Unreadable:
    return Unreadable(Reason.BROKEN, why)
