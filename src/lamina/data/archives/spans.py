"""Images whose bytes are a part of a larger file each: where they lie, and how they are read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.data.columns import Numbers, SharedArray, as_array
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
        spans: where each image lies.
        names, labels, class_names, notes, no_labels: as `Source`.
    """

    def __init__(
        self,
        files: Sequence[str],
        spans: Spans | SharedArray,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        self.files = tuple(files)
        self._spans = spans if isinstance(spans, SharedArray) else SharedArray(spans)

    @property
    def spans(self) -> Spans:
        """Where each image lies."""
        return self._spans.values

    def columns(self) -> dict[str, NDArray[Any]]:
        """All that there is of each image, by the names of the arguments."""
        labels = Numbers([]) if self.labels is None else self.labels
        text, ends = self._names.text.values, self._names.ends.values
        return {"spans": self.spans, "text": text, "ends": ends, "labels": labels.values}

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
        digest, spans = hashlib.sha256(), self.spans[as_array(indices)]
        for number in np.unique(spans[:, 0]).tolist():
            digest.update(os.fsencode(os.path.realpath(self.files[number])) + b"\0")
            try:
                stat = os.stat(self.files[number])
            except OSError:
                digest.update(b"absent ")
            else:
                digest.update(f"{stat.st_size} {stat.st_mtime_ns} ".encode())
        digest.update(np.ascontiguousarray(spans).data)
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the images and a sample of their bytes: that of the same files in a folder
        (`digest.files_digest`)."""
        digest, sizes = hashlib.sha256(), self.spans[as_array(indices), 2]
        stretches = [*sorted(sampled(len(sizes))), len(sizes)]
        for k, following in pairwise(stretches):
            known = f"{sizes[k]} ".encode()
            try:
                with self.open(indices[k]) as window:
                    known += ends_digest(window, int(sizes[k]))
            except (OSError, Unreadable):
                known = b"unreadable "
            digest.update(known)
            digest.update("".join(f"{size} " for size in sizes[k + 1 : following].tolist()).encode())
        return digest.digest()
