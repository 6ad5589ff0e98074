"""All that is known of the images of many archives, in one file of lamina's cache, which is mapped and not
read: ten million images are opened in about a second, and all processes of a computer share one copy."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from lamina.data.archives.spans import SpanSource
from lamina.data.array_files import read_arrays, write_arrays
from lamina.data.columns import Names, Numbers
from lamina.data.samples.cache import cache_folder
from lamina.data.sources import Split

_FORMAT = 1
_WORTH_IMAGES = 1 << 16
"""Images from which on the index is kept: fewer are put together in no time."""


class Opened(NamedTuple):
    """What `open_shards` gives."""

    source: SpanSource
    has_held_out: bool


class WholeIndex:
    """The index of the images of one part of some archives, where it is kept.

    A file holds what this version of lamina made of these archives in the state that they have now, as their
    sizes and times of change tell. It is never changed: another state is another file, and takes its place.

    Args:
        shards: paths of the archives.
        split: the part.
    """

    def __init__(self, shards: Sequence[str], split: Split) -> None:
        self._shards = tuple(shards)
        paths = [os.path.realpath(shard) for shard in shards]
        self._folder = cache_folder() / "archives"
        self._key = _digest([paths, split])
        self._file: Path | None = None
        try:
            found = [os.stat(path) for path in paths]
        except OSError:  # reading the archive says why
            return
        state = [_FORMAT, version("lamina"), [[each.st_size, each.st_mtime_ns] for each in found]]
        self._file = self._folder / f"{self._key}-{_digest(state)}.arrays"

    def read(self) -> Opened | None:
        """What is kept; None where there is nothing of this state."""
        if self._file is None or (found := read_arrays(self._file)) is None:
            return None
        arrays, about = found
        source = SpanSource(
            self._shards,
            arrays["spans"],
            Names(None, arrays["text"], arrays["ends"]),
            Numbers(arrays["labels"]) if about["class_names"] else None,
            about["class_names"],
            notes=about["notes"],
            no_labels=about["no_labels"],
        )
        return Opened(source, about["has_held_out"])

    def write(self, opened: Opened) -> None:
        """Keep it, where there are many images; where that is not possible it is put together anew next
        time."""
        source = opened.source
        if self._file is None or len(source) < _WORTH_IMAGES:
            return
        about = {
            "class_names": source.class_names,
            "notes": source.notes,
            "no_labels": source.no_labels,
            "has_held_out": opened.has_held_out,
        }
        with suppress(OSError):
            write_arrays(self._file, source.columns(), about)
            for other in self._folder.glob(f"{self._key}-*.arrays"):
                if other != self._file:
                    other.unlink()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
