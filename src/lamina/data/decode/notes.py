"""Notes on images that could be read, counted by their kind: never a line for each image."""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

from PIL import Image

from lamina.core.batch import Remark
from lamina.core.text import counted, counted_share, printable

_LOGGERS = ("tifffile", "PIL", "pydicom", "imagecodecs")
_NATIVE = logging.getLogger("PIL.native")
_OF_LIBRARIES = re.compile(rb"libpng |tempfile\.tif|[A-Za-z]\w*: |[A-Za-z]\w*Warning")
"""How lines of libpng and libtiff begin."""


class NoteKind(StrEnum):
    """The fixed set of kinds; notes are counted by them."""

    FRAMES = "several frames, depths or pages, of which the first is read"
    CLIPPED = "values outside of the range that becomes 0 to 1, clipped"
    WINDOWED = "values mapped to 0 to 1 by the file's own first window or table, and others clipped"
    FILLED = "values without data, filled by the mean of the others of their channel"
    WARNED = "a warning by the decoder"


OF_VALUES = (NoteKind.CLIPPED, NoteKind.FILLED, NoteKind.WINDOWED)
"""Kinds that say how options of values turned out."""


class Note(NamedTuple):
    """One thing about one image; `detail` is as the decoder wrote it. `found` of `of` values are concerned,
    where these are counted."""

    kind: NoteKind
    detail: str = ""
    found: int = 0
    of: int = 0


def remarks_on(index: int, name: str, notes: Iterable[Note]) -> list[Remark]:
    """The notes on a sample, as they travel with a batch."""
    return [
        Remark(index, printable(name), str(note.kind), printable(note.detail), note.found, note.of)
        for note in notes
    ]


def remark_lines(remarks: Iterable[Remark]) -> tuple[str, ...]:
    """A line for each kind: on how many images, how many of their values, and the first of them."""
    kinds: dict[str, dict[int, Remark]] = {}
    for remark in remarks:
        kinds.setdefault(remark.kind, {}).setdefault(remark.index, remark)
    return tuple(_line(kind, list(each.values())) for kind, each in kinds.items())


def _line(kind: str, remarks: Sequence[Remark]) -> str:
    found, of, first = sum(r.found for r in remarks), sum(r.of for r in remarks), remarks[0]
    values = f": {counted_share(found, of, 'values')}" if of else ""
    if kind == NoteKind.WINDOWED and (differing := len({r.detail for r in remarks})) > 1:
        values = f"{values}, by {differing} different ones"
    example = f"{first.name}: {first.about}" if first.about else first.name
    return f"{counted(len(remarks), 'image')}: {kind}{values} (the first is {example})"


@contextmanager
def collected() -> Iterator[list[Note]]:
    """What decoders log and warn of within, in place of a line on stderr for each file."""
    found: list[Note] = []
    handler = _Collector(found)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield found
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        found += [
            Note(NoteKind.WARNED, _first_line(str(each.message))) for each in warned if _of_the_file(each)
        ]


def _of_the_file(warned: warnings.WarningMessage) -> bool:
    """Whether a warning is about a file: not about its size, which the limits check, nor about a library."""
    of_size = issubclass(warned.category, Image.DecompressionBombWarning)
    return not of_size and "torchvision" not in str(warned.message).lower()


@contextmanager
def native_messages() -> Iterator[None]:
    """What a C library (libpng, libtiff) writes to stderr within goes to Python's logging instead.

    Lines that are not such a library's, of another thread perhaps, are written after all.
    """
    with tempfile.TemporaryFile() as kept:
        try:
            stderr = os.dup(2)
        except OSError:  # a process without stderr
            yield
            return
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            kept.seek(0)
            for line in kept.read(65_536).splitlines():
                if _OF_LIBRARIES.match(line):
                    _NATIVE.warning("%s", line.decode(errors="replace"))
                else:
                    os.write(stderr, line + b"\n")
            os.close(stderr)


class _Collector(logging.Handler):
    """Keeps what this thread's decoders log; with a handler, logging writes nothing by itself."""

    def __init__(self, found: list[Note]) -> None:
        super().__init__(logging.WARNING)
        self._found, self._thread = found, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._found.append(Note(NoteKind.WARNED, _first_line(record.getMessage())))


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]
