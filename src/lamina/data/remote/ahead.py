"""Images of a batch that are read from a remote at the same time, before they are asked for one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lamina.data.decode.limits import Stream

_THREADS = 16


class ReadAhead:
    """What is being read in this process, by threads of it.

    It is copied into other processes empty, and begins anew in one that was forked.
    """

    def __init__(self) -> None:
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[Stream]] = {}

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return ReadAhead, ()

    def start(self, indices: Iterable[int], read: Callable[[int], Stream]) -> None:
        """Begin to read some images; those that were begun before and not taken are given up."""
        if self._pool is None or self._process != os.getpid():
            self._process, self._pending = os.getpid(), {}
            self._pool = ThreadPoolExecutor(_THREADS, "lamina-remote")
        for left in self._pending.values():
            left.cancel()
        self._pending = {i: self._pool.submit(read, i) for i in dict.fromkeys(indices)}

    def take(self, i: int) -> Stream | None:
        """The bytes of image i, once; None where nobody began to read it. Raises what reading it raised."""
        if self._process != os.getpid() or (found := self._pending.pop(i, None)) is None:
            return None
        return found.result()
