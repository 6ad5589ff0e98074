"""Bars on a terminal while a command computes: how much is done, and of how much."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from lamina.core.console import make_console
from lamina.core.text import printable


class _Bar:
    """A bar on stderr, where that is a terminal; it disappears when the work is done."""

    def __init__(self, what: str = "") -> None:
        console = make_console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        self._terminal = console.is_terminal
        self._progress = Progress(*columns, console=console, transient=True, disable=not self._terminal)
        self._task = self._progress.add_task(what, total=None, detail="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class ImagesBar(_Bar):
    """Images that are computed, how many per second, and the share of the time spent waiting for them. It is
    called after each batch (`ComputeOptions.progress`); fewer images than before begin another pass."""

    def __init__(self) -> None:
        super().__init__("images")
        self._done = 0
        self._first: tuple[float, int] | None = None
        """When the first batch of this pass was done, and how many images it had."""

    def __call__(self, done: int, total: int, wait: float) -> None:
        """Show the number of images done, and the share of the time that was spent waiting for them."""
        self._progress.start()  # not before: a training that comes first has a bar of its own
        now = time.perf_counter()
        if self._first is None or done <= self._done:
            self._first = (now, done)
            self._progress.reset(self._task, total=total)
        since, before = self._first
        self._done = done
        detail = f"data wait {wait:.0%}"
        if done > before:
            detail = f"{(done - before) / max(now - since, 1e-9):.1f} images/s  {detail}"
        self._progress.update(self._task, completed=done, detail=detail)


class AnalysisBar(_Bar):
    """The progress of an analysis (`lamina.analyze.session.Progress`). Without a terminal it prints nothing,
    but for analyses that report details: these get a line for each part that is done."""

    def __init__(self) -> None:
        super().__init__()
        self._what, self._done, self._total, self._detail = "", 0, 0, ""
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            self._print_part()
        if isinstance(error, KeyboardInterrupt) and not getattr(error, "__notes__", None):
            what, done = printable(self._what), f"({self._done} of {self._total})"
            error.add_note(f"{what} {done}" if what else "nothing was finished")
            error.add_note("nothing of it is kept: an analysis is written when it is complete")

    def __call__(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show how much of an analysis is done. Another `what`, or a smaller number, begins a pass."""
        if what != self._what or done < self._done:
            self._progress.reset(self._task, total=total, description=printable(what))
        elif done > self._done:
            self._print_part()
        self._what, self._done, self._total, self._detail = what, done, total, detail
        self._progress.update(self._task, completed=done, detail=printable(detail))
        self._progress.start()

    def _print_part(self) -> None:
        """Print a line on the part that is done, where there is no terminal."""
        if self._detail and not self._terminal:
            seconds = time.perf_counter() - self._started
            part = f"{self._what} {self._done + 1} of {self._total}"
            line = f"{part}  {self._detail.partition(',')[0]}  {seconds:.0f} s"
            print(printable(line), file=sys.stderr, flush=True)
