"""Wall-clock time of a run: where it goes, and when the next checkpoint is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

from lamina.core.batch import Batch


class Clock:
    """Measures laps (the steps of one log interval) and the time spent waiting for data in them."""

    def __init__(self, seconds: float) -> None:
        self._start = self._lap = self._saved = time.perf_counter()
        self._before = seconds
        self._waited = 0.0
        self._steps = 0

    def batches(
        self, batches: Iterator[Batch], waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Iterator[Batch]:
        """The same batches; the time until each one arrives is counted as waiting, and spent inside
        `waiting()`."""
        while True:
            before = time.perf_counter()
            with waiting():
                batch = next(batches, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            self._steps += 1
            yield batch

    @property
    def seconds(self) -> float:
        """Time since the run began, earlier parts of a resumed run included."""
        return self._before + time.perf_counter() - self._start

    def lap(self, batch_size: int) -> dict[str, float]:
        """The clock fields of a row: unix time, seconds of training so far, images/s and the share of the
        time spent waiting for data, the latter two over the steps since the last lap."""
        now = time.perf_counter()
        span = max(now - self._lap, 1e-9)
        fields = {
            "time": time.time(),
            "seconds": self.seconds,
            "images_per_second": self._steps * batch_size / span,
            "data_wait": self._waited / span,
        }
        self._lap, self._waited, self._steps = now, 0.0, 0
        return fields

    def save_due(self, every_seconds: float | None) -> bool:
        """Whether so many seconds have passed since the last checkpoint."""
        return every_seconds is not None and time.perf_counter() - self._saved >= every_seconds

    def saved(self) -> None:
        """A checkpoint was written just now."""
        self._saved = time.perf_counter()
