"""What a tar file holds, by one walk over its headers.

Members are never unpacked, so their names can do no harm; what is not a plain file is never followed.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.archives.members import Collector, Members, Place

_MOST_HEADER_BYTES = 1 << 20
"""A header with a long name or extended attributes is far smaller."""
_BLOCK = tarfile.BLOCKSIZE


def read_tar(path: str, file: Any, length: int, walked: Callable[[int], None]) -> Members:
    """The images of a tar file; a few bytes are read for each member.

    Args:
        path: its name, for errors.
        file: its bytes, with `read`, `seek` and `tell`.
        length: their number.
        walked: called with the number of bytes by which the walk has gone on, member by member.

    Raises:
        LaminaError: where it is not one whole tar file from its first byte to its last.
        OSError: where it cannot be read.
    """
    walk = _Walk(path, _Headers(file), length)
    walk.members(walked)
    return walk.found.result()


class _Headers:
    """A file for tarfile that gives no more than a header has: one that announces gigabytes is refused."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        content: bytes = self._file.read(size)
        return content


class _Walk:
    """One walk over the members."""

    def __init__(self, path: str, file: _Headers, length: int) -> None:
        self.path, self.file, self.length = path, file, length
        self.found = Collector()

    def members(self, walked: Callable[[int], None]) -> None:
        """Take in all members, and see that the file ends where they do."""
        try:
            with tarfile.open(fileobj=self.file, mode="r:", errorlevel=2) as tar:  # type: ignore[call-overload]
                place = -1
                while (member := tar.next()) is not None:
                    tar.members.clear()  # tarfile keeps them all
                    if tar.offset <= place:
                        raise tarfile.ReadError(f"a member at byte {member.offset} that points backwards")
                    walked(tar.offset - max(place, 0))
                    place = tar.offset
                    self._take(member)
                self._check_end(tar.offset)
        except LaminaError:
            raise
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, MemoryError) as error:
            raise self._not_whole(" ".join(str(error).split()) or type(error).__name__) from None

    def _take(self, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        if member.size < 0 or (member.isreg() and member.offset_data + member.size > self.length):
            raise self._not_whole(f"it ends within {member.name!r}")

        def content() -> bytes:
            self.file.seek(member.offset_data)
            return self.file.read(member.size)

        plain_file = member.isreg() and not member.issparse()
        place = Place(member.offset_data, member.size)
        self.found.take(member.name, plain_file, place, member.size, content)

    def _check_end(self, place: int) -> None:
        """Where tarfile finds no further header there have to be zeros, to the end of the file."""
        self.file.seek(place)
        block = self.file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise self._not_whole("its end is missing")
        while block:
            if block.strip(b"\0"):
                raise self._not_whole(f"no member begins at byte {place}, and yet there is content")
            place += len(block)
            block = self.file.read(_MOST_HEADER_BYTES)

    def _not_whole(self, why: str) -> LaminaError:
        return LaminaError(
            f"{printable(self.path)} is no whole tar file ({printable(why)}); copy or download it again, or "
            "make it anew with `tar -cf`"
        )
