"""A part of a file as a file."""

from __future__ import annotations

import io
import os

from lamina.data.decode.limits import Stream


class Window(io.RawIOBase):
    """The bytes `first` to `first + size - 1` of a file, as a file that can be read and sought.

    Closing it closes the file too, unless `keep_open`.
    """

    def __init__(self, file: Stream, first: int, size: int, keep_open: bool = False) -> None:
        super().__init__()
        self._file, self._first, self._size, self._place = file, first, size, 0
        self._keep_open = keep_open

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of any file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(f"a place before the first byte: {base + offset}")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: object, /) -> int:
        """As of any file; never more than the window has."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        wanted = max(0, min(len(view), self._size - self._place))
        if not wanted:
            return 0
        self._file.seek(self._first + self._place)
        n = self._file.readinto(view[:wanted]) or 0
        self._place += n
        return n

    def close(self) -> None:
        """Close the file too, unless it is to stay open."""
        if not self._keep_open:
            self._file.close()
        super().close()
