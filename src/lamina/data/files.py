"""Finding image files: folders however nested, globs, lists; and names that are safe to print."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lamina.errors import LaminaError

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
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of all images below `folder`, relative to it, sorted.

    Links are followed. Each file appears once, whatever links lead to it, under its own path where that
    is inside the folder; so links cannot loop. Pipes, dangling links and the like are listed if their
    name is an image's: reading them gives the reason.
    """
    root = os.path.realpath(folder)
    found: dict[str, str] = {}  # real path -> path relative to the folder
    folders, linked = {root}, [("", root)]
    while linked:  # own files first, then what links lead to, in sorted order
        links = sorted(link for top in linked for link in _walk(*top, found, folders))
        linked = []
        for path, real in links:
            if os.path.isdir(real):
                if real not in folders:
                    folders.add(real)
                    linked.append((path, real))
            elif is_image_name(os.path.basename(path)):
                found.setdefault(real, path)
    return sorted(found.values())


def _walk(relative: str, real: str, found: dict[str, str], folders: set[str]) -> Iterator[tuple[str, str]]:
    """Put the files of one folder tree into `found`; give the links met on the way as (path, real path)."""
    pending = [(relative, real)]
    while pending:
        relative, real = pending.pop()
        try:
            entries = list(os.scandir(real))
        except OSError as error:
            raise LaminaError(f"cannot list the folder {printable(real)}: {error.strerror}") from None
        for entry in entries:
            path = os.path.join(relative, entry.name)
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                yield path, os.path.realpath(entry.path)
            elif entry.is_dir():
                if entry.path not in folders:
                    folders.add(entry.path)
                    pending.append((path, entry.path))
            elif is_image_name(entry.name):
                found.setdefault(entry.path, path)


def is_glob(spec: str) -> bool:
    """Whether a text is a pattern rather than the path of something that exists."""
    return glob.has_magic(spec) and not os.path.lexists(spec)


def match_glob(pattern: str) -> list[str]:
    """The images that match a glob pattern (`**` is any number of folders), sorted, each file once."""
    found: dict[str, str] = {}
    for path in sorted(glob.iglob(pattern, recursive=True)):
        if is_image_name(os.path.basename(path)) and not os.path.isdir(path):
            found.setdefault(os.path.realpath(path), path)
    return list(found.values())


def read_list(file: str | os.PathLike[str]) -> list[str]:
    """The paths in a text file, one on each line, relative to the file's folder; blank lines are skipped."""
    try:
        lines = os.fsdecode(Path(file).read_bytes()).split("\n")
    except OSError as error:
        raise LaminaError(f"cannot read the list {printable(str(file))}: {error.strerror}") from None
    folder = os.path.dirname(os.path.abspath(file))
    names = (line.removesuffix("\r") for line in lines)
    return [os.path.normpath(os.path.join(folder, name)) for name in names if name.strip()]


def printable(name: str) -> str:
    """A file name without what could confuse a terminal, JSON or a page: such characters as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
