"""Names of files: which are images, and many of them in little memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from lamina.core.errors import LaminaError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_OTHERS = (".png", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".npy")
SUFFIXES = frozenset((*_JPEG, *_OTHERS, ".pbm", ".pgm", ".ppm", ".pnm"))
"""A folder or a glob gives the files whose name ends like this; a list gives what it lists."""


class Names:
    """Many strings in one buffer: a list of a million would be copied into each worker as it is read."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._ends = np.cumsum([len(e) for e in encoded], dtype=np.int64)
        self._text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        start = int(self._ends[i - 1]) if i else 0
        return os.fsdecode(self._text[start : int(self._ends[i])])

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def is_image_name(name: str) -> bool:
    """Whether a folder's entry counts as an image; names that begin with a dot never do."""
    return not name.startswith(".") and ending(name) in SUFFIXES


def ending(name: str) -> str:
    """Its last dot and what follows, in lower case; "" where there is none."""
    return os.path.splitext(name)[1].lower()


def not_files(data: object, instead: str) -> LaminaError:
    """The error for data that are images in memory, where files are read; `instead` says what to do."""
    return LaminaError(
        f"data is a {type(data).__name__}, and lamina reads files: give a folder, a list of paths, a glob or "
        f"sample:NAME; {instead}"
    )
