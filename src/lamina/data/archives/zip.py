"""What a zip file holds, by the directory at its end.

Members are never unpacked to the disk, so their names can do no harm. What of one member lies within another
one, as in archives that unpack to a million times their size, is refused here; how large a member may become
is decided where it is read (`unpack`).
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Sequence
from functools import partial
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.archives.members import Collector, Members, Place
from lamina.data.archives.unpack import HEADER_BYTES, packing_of, unpack, why_not_read
from lamina.data.archives.window import Window
from lamina.data.decode.unreadable import Unreadable
from lamina.data.options import AS_STORED

_END = struct.Struct("<4s4H2LH")
"""The end record: signature, number of this disk and of the directory's, members here and in all, size and
place of the directory, length of the comment."""
_UNKNOWN = 0xFFFF
"""What the end record has where another one, of 64 bits, has the number."""
_BAD = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    ValueError,
    OverflowError,
    struct.error,
    MemoryError,
    Unreadable,
)


def read_zip(path: str, file: Any, length: int) -> Members:
    """The images of a zip file; its directory is read, and small members that may say a class.

    Args:
        path: its name, for errors.
        file: its bytes, with `read`, `seek` and `tell`.
        length: their number.

    Raises:
        LaminaError: where it is no whole zip file, is one part of several, has members that overlap, or none
            of its images is packed in a way that is read.
        OSError: where it cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _check_end(file, length, len(archive.comment), len(infos))
            _check_places(infos, archive.start_dir)
        found = _collected(infos, file, length)
    except LaminaError:
        raise
    except _BAD as error:
        why = printable(" ".join(str(error).split()) or type(error).__name__)
        raise LaminaError(
            f"{printable(path)} is no whole zip file ({why}); copy or download it again, or make it anew "
            "with `zip -0 -r`"
        ) from None
    reasons = {why_not_read(place.packing) for place in found.places}
    if reasons and "" not in reasons:
        raise LaminaError(
            f"all images in {printable(path)} are {' or '.join(sorted(reasons))}, which lamina does not "
            "read; unpack it, and pack the images again with `zip -0 -r`"
        )
    return found


def _collected(infos: Sequence[zipfile.ZipInfo], file: Any, length: int) -> Members:
    found = Collector()
    slashes = any("/" in info.filename for info in infos)
    for info in infos:
        if info.is_dir():
            continue
        mode = info.external_attr >> 16  # 0 where it was packed on Windows
        plain_file = not stat.S_IFMT(mode) or stat.S_ISREG(mode)
        place = Place(info.header_offset, info.compress_size, packing_of(info), info.file_size, info.CRC)
        name = info.filename if slashes else info.filename.replace("\\", "/")  # as .NET wrote it for years
        found.take(name, plain_file, place, info.file_size, partial(_content, file, length, place))
    return found.result()


def _content(file: Any, length: int, place: Place) -> bytes:
    """The bytes of a small member; none of one that is packed in a way that is not read."""
    if why_not_read(place.packing):
        return b""

    def part(first: int, size: int) -> io.RawIOBase:
        return Window(file, first, max(0, min(size, length - first)), keep_open=True)

    with unpack(part, place, AS_STORED) as content:
        return content.read() or b""


def _check_end(file: Any, length: int, comment: int, members: int) -> None:
    """The record at the end of the file has to be the one that was read, of the only disk, and of so many
    members."""
    file.seek(length - _END.size - comment)
    record = file.read(_END.size)
    if len(record) < _END.size or not record.startswith(b"PK\5\6"):
        raise zipfile.BadZipFile("something lies behind its end")
    _, disk, disk_of_directory, here, stated, _, _, stated_comment = _END.unpack(record)
    if stated_comment != comment:
        raise zipfile.BadZipFile("its end is missing")
    if {disk, disk_of_directory} - {0, _UNKNOWN}:
        raise zipfile.BadZipFile("it is one of several parts, which have to be joined with `zip -s 0`")
    if _UNKNOWN not in (here, stated) and not here == stated == members % 2**16:  # some count no further
        raise zipfile.BadZipFile(f"it states {stated} members and lists {members}")


def _check_places(infos: Sequence[zipfile.ZipInfo], directory: int) -> None:
    """No member may reach into the next one or into the directory.

    The names in the members' own headers are not known here, so a few bytes may yet be in two members; no
    more than the file has are read of all together.
    """
    if any(info.volume not in (0, _UNKNOWN) for info in infos):
        raise zipfile.BadZipFile("it is one of several parts, which have to be joined with `zip -s 0`")
    ordered = sorted(infos, key=lambda info: info.header_offset)
    starts = [info.header_offset for info in ordered] + [directory]
    if starts[0] < 0:
        raise zipfile.BadZipFile(f"{ordered[0].filename!r} begins before the file")
    for info, start, following in zip(ordered, starts, starts[1:], strict=False):
        if start + HEADER_BYTES + info.compress_size > following:
            raise zipfile.BadZipFile(f"{info.filename!r} overlaps what follows it")
