"""A bar on a terminal while images are read and computed: how many, how fast, how much waiting for them."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class ImagesBar:
    """A bar on stderr, told of each batch (`lamina.evaluate.Computing.progress`); nothing where that is no
    terminal. Where fewer images are done than before, another pass has begun."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("images"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None, said="")
        self._done = 0
        self._first: tuple[float, int] | None = None
        """When the first batch of this pass was done, and how many images it had."""

    def __enter__(self) -> ImagesBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int, wait: float) -> None:
        """So many images of so many are done; so large a share of the time went into waiting for them."""
        self._progress.start()  # not before: a training that comes first has a bar of its own
        now = time.perf_counter()
        if self._first is None or done <= self._done:
            self._first = (now, done)
            self._progress.reset(self._task, total=total)
        since, before = self._first
        self._done = done
        said = f"data wait {wait:.0%}"
        if done > before:
            said = f"{(done - before) / max(now - since, 1e-9):.1f} images/s  {said}"
        self._progress.update(self._task, completed=done, said=said)
