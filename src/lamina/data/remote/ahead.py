"""Images of a batch that are read from a remote at the same time, before they are asked for one by one."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lamina.data.decode.limits import Stream
from lamina.data.decode.unreadable import Unreadable
from lamina.data.remote.requests import THREADS

Read = Callable[[int], Stream]


class ReadAhead:
    """What is being read in this process, by threads of it.

    It is copied into other processes empty, and begins anew in one that was forked.
    """

    def __init__(self) -> None:
        self._process = 0
        self._pool: ThreadPoolExecutor | None = None
        self._pending: dict[int, Future[bytes]] = {}
        self._times: Counter[int] = Counter()

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return ReadAhead, ()

    def start(self, indices: Iterable[int], read: Read) -> None:
        """Begin to read some images, each of them once; those that were begun before and not taken are given
        up. An image can be taken as often as it is listed."""
        if self._pool is None or self._process != os.getpid():
            self._process, self._pending = os.getpid(), {}
            self._pool = ThreadPoolExecutor(THREADS, "lamina-remote")
        self._give_up()
        self._times = Counter(indices)
        self._pending = {i: self._pool.submit(_content, read, i) for i in self._times}

    def take(self, i: int) -> Stream | None:
        """The bytes of image i; None where nobody began to read it, or all was taken. Raises what reading it
        raised; where that is no fault of the image, such as a remote that is gone, all others are given up,
        so that the end of the process does not wait for them."""
        if self._process != os.getpid() or i not in self._pending:
            return None
        self._times[i] -= 1
        found = self._pending[i] if self._times[i] else self._pending.pop(i)
        try:
            return io.BytesIO(found.result())
        except Unreadable:
            raise
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        for left in self._pending.values():
            left.cancel()
        self._pending = {}


def _content(read: Read, i: int) -> bytes:
    with read(i) as file:
        return file.read() or b""
