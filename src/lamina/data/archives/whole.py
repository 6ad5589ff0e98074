"""All that is known of the images of many archives, in one file of lamina's cache, which is mapped and not
read: ten million images are opened in about a second, and all processes of a computer share one copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import NamedTuple

from lamina.core.locking import in_turn
from lamina.core.terminal import why
from lamina.core.text import printable
from lamina.data.archives.files import State, identity_of
from lamina.data.archives.index import PATIENCE_SECONDS
from lamina.data.archives.spans import SpanSource
from lamina.data.array_files import read_arrays, write_arrays
from lamina.data.columns import Names, Numbers
from lamina.data.samples.cache import cache_folder
from lamina.data.sources import Source, Split

_FORMAT = 2
_WORTH_IMAGES = 1 << 16
"""Images from which on the index is kept: fewer are put together in no time."""


class Opened(NamedTuple):
    """What `open_archives` gives."""

    source: Source
    has_held_out: bool


class WholeIndex:
    """The index of the images of one part of some archives, where it is kept.

    A file holds what this version of lamina made of these archives in the state that they have now, as their
    sizes and times of change tell. It is never changed: another state is another file, and takes its place.

    Args:
        shards: paths of the archives.
        states: their states.
        split: the part.
    """

    def __init__(self, shards: Sequence[str], states: Sequence[State], split: Split) -> None:
        self._shards, self._states = tuple(shards), tuple(states)
        self._folder = cache_folder() / "archives"
        self._key = _digest([[identity_of(shard) for shard in shards], split])
        state = _digest([_FORMAT, version("lamina"), states])
        self._file = self._folder / f"{self._key}-{state}.arrays"

    def read(self) -> Opened | None:
        """What is kept; None where there is nothing of this state."""
        if (found := read_arrays(self._file)) is None:
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
            states=self._states,
        )
        return Opened(source, about["has_held_out"])

    @contextmanager
    def turn(self, waits: Callable[[float, str], None]) -> Iterator[None]:
        """Make it within this, after whoever makes it now, and look for it first: making it takes memory,
        which the processes of a run would all take at the same time. `waits` is as of `in_turn`."""
        with ExitStack() as lock:
            with suppress(OSError):
                self._folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(in_turn(self._file.with_suffix(".lock"), PATIENCE_SECONDS, waits))
            yield

    def write(self, opened: Opened) -> None:
        """Keep it, where there are many images; the source says so where that is not possible."""
        source = opened.source
        if not isinstance(source, SpanSource) or len(source) < _WORTH_IMAGES:
            return
        about = {
            "class_names": source.class_names,
            "notes": source.notes,
            "no_labels": source.no_labels,
            "has_held_out": opened.has_held_out,
        }
        try:
            write_arrays(self._file, source.columns(), about)
        except OSError as error:
            if read_arrays(self._file) is not None:  # Windows: another process wrote it, and reads it
                return
            source.notes += (
                f"the index of these images cannot be kept in {printable(str(self._folder))} ({why(error)}), "
                "and is made anew at each start; set LAMINA_CACHE to a folder that can be written",
            )
            return
        for other in self._folder.glob(f"{self._key}-*.arrays"):
            if other != self._file:
                with suppress(OSError):  # Windows: another process reads it
                    other.unlink()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
