"""A file at a remote for whoever reads headers out of it: in order, with gaps, and in few requests."""

from __future__ import annotations

import io
import os

from lamina.data.remote.requests import FIRST_TRIES, TRIES, read_range

_LEAST_BYTES, _FIRST_BYTES, _MOST_BYTES = 1 << 16, 1 << 18, 1 << 23


class BlockFile(io.RawIOBase):
    """The bytes of a file at a remote, read in blocks.

    A block grows where the next bytes that are asked for lie near its end, up to 8 MiB, and shrinks where
    they are far, down to 64 KiB: headers between small images are read in few requests, and of large images
    little is read that is not needed.

    Args:
        url: the file.
        size: its number of bytes.
    """

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._place = url, size, 0
        self._first, self._block = 0, b""
        self._bytes = _FIRST_BYTES

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The place of the next byte."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"a place before the first byte: {base + offset}")
        self._place = base + offset
        return self._place

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, fewer at the end of the file alone; all that are left where it is negative.

        Raises:
            Unreadable, LaminaError: as `read_range`.
        """
        left = max(0, self._size - self._place)
        size = left if size < 0 else min(size, left)
        found = self._of_block(size)
        if len(found) < size:
            self._fetch(self._place + len(found), size - len(found))
            found += self._block[self._place + len(found) - self._first :][: size - len(found)]
        self._place += len(found)
        return found

    def _of_block(self, size: int) -> bytes:
        start = self._place - self._first
        return self._block[start : start + size] if start >= 0 else b""

    def _fetch(self, first: int, size: int) -> None:
        gap = first - (self._first + len(self._block))
        near = 0 <= gap < self._bytes
        self._bytes = min(_MOST_BYTES, self._bytes * 2) if near else max(_LEAST_BYTES, self._bytes // 2)
        if first + self._bytes > self._size:  # the end of a zip file is read backwards
            start = max(0, min(first, self._size - self._bytes))
            start = max(start, first) if near else start
        else:
            start = first
        end = min(self._size, max(first + size, start + self._bytes))
        tries = TRIES if self._block else FIRST_TRIES
        self._block, self._first = read_range(self._url, start, end - start, tries), start
