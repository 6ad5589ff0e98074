"""Images whose bytes are a part of a larger file each: where they lie, and how they are read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.data.decode.decode import open_regular
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.digest import ends_digest, sampled
from lamina.data.sources import EncodedSource

Spans = Int64[NDArray[np.int64], "N 3"]
"""Of each image the number of its file, and the first byte and the number of bytes in it."""


class Window(io.RawIOBase):
    """The bytes `first` to `first + size - 1` of a file, as a file that can be read and sought."""

    def __init__(self, file: io.FileIO, first: int, size: int) -> None:
        super().__init__()
        self._file, self._first, self._size, self._place = file, first, size, 0

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
        """Close the file too."""
        self._file.close()
        super().close()


class SpanSource(EncodedSource):
    """Images that are parts of files.

    Args:
        files: paths of the files.
        spans: where each image lies; it is copied into worker processes as one array.
        names, labels, class_names, notes, no_labels: as `Source`.
    """

    def __init__(
        self,
        files: Sequence[str],
        spans: Spans,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        self.files, self.spans = tuple(files), spans

    def open(self, i: int) -> Window:
        """The bytes of image i; raises `Unreadable` where the file is gone, or has become shorter."""
        number, first, size = map(int, self.spans[i])
        file = open_regular(self.files[number])
        if os.fstat(file.fileno()).st_size < first + size:
            file.close()
            raise Unreadable(Reason.BROKEN, "the file around it ends before it")
        return Window(file, first, size)

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of the files, and of where the images lie in them."""
        digest = hashlib.sha256()
        for number in np.unique(self.spans[list(indices), 0]).tolist():
            digest.update(os.fsencode(os.path.realpath(self.files[number])) + b"\0")
            try:
                stat = os.stat(self.files[number])
            except OSError:
                digest.update(b"absent ")
            else:
                digest.update(f"{stat.st_size} {stat.st_mtime_ns} ".encode())
        digest.update(np.ascontiguousarray(self.spans[list(indices)]).tobytes())
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the images and a sample of their bytes: that of the same files in a folder
        (`digest.files_digest`)."""
        digest, with_bytes = hashlib.sha256(), sampled(len(indices))
        for k, i in enumerate(indices):
            size = int(self.spans[i, 2])
            known = f"{size} ".encode()
            if k in with_bytes:
                try:
                    with self.open(i) as window:
                        known += ends_digest(window, size)
                except (OSError, Unreadable):
                    known = b"unreadable "
            digest.update(known)
        return digest.digest()
