"""A line now and then while archives are indexed for long."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from lamina.core.text import counted, printable

_FIRST_SECONDS = 5.0
_NEXT_SECONDS = 15.0


class IndexProgress:
    """Says on standard error how far the indexing of archives is, first after some seconds.

    Args:
        files: how many archives there are.
        n_bytes: how many bytes they have together.
        clock: the seconds.
    """

    def __init__(self, files: int, n_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._files, self._of, self._clock = files, n_bytes, clock
        self._done = 0
        self._next = clock() + _FIRST_SECONDS

    def walked(self, n_bytes: int) -> None:
        """So many bytes more of an archive were gone through, or need not be."""
        self._done += n_bytes
        if self._due():
            share = min(self._done / max(self._of, 1), 1.0)
            archives = counted(self._files, "archive")
            _say(f"indexing {archives} of {self._of / 1e9:.1f} GB, once: {share:.0%} done")

    def waits(self, seconds: float, holder: str) -> None:
        """Another process indexes an archive that is needed here."""
        if self._due():
            _say(f"waiting for {printable(holder)}, which indexes these archives, for {seconds:.0f} s")

    def _due(self) -> bool:
        due = self._clock() >= self._next
        if due:
            self._next = self._clock() + _NEXT_SECONDS
        return due


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
