"""Bars on a terminal while a command computes: how much is done, and of how much."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lamina.core.console import make_console
from lamina.data.file_names import printable


class _Bar:
    """On stderr, where that is a terminal; it goes when it is done."""

    def __init__(self, what: str, seconds: ProgressColumn, total: int | None = None) -> None:
        console = make_console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            MofNCompleteColumn(),
            BarColumn(),
            seconds,
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._terminal = console.is_terminal
        self._progress = Progress(*columns, console=console, transient=True, disable=not self._terminal)
        self._task = self._progress.add_task(what, total=total, said="")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class ImagesBar(_Bar):
    """Images that are read and computed, how fast, and how much waiting for them; told of each batch
    (`lamina.features.Computing.progress`). Where fewer images are done than before, another pass has
    begun."""

    def __init__(self) -> None:
        super().__init__("images", TimeRemainingColumn())
        self._done = 0
        self._first: tuple[float, int] | None = None
        """When the first batch of this pass was done, and how many images it had."""

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


class LookingBar(_Bar):
    """An analysis; told what is being done, how much of it is done, and how much there is."""

    def __init__(self) -> None:
        super().__init__("", TimeRemainingColumn())
        self._before, self._of = ("", 0), 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, KeyboardInterrupt):
            what, done = self._before
            error.add_note(f"{printable(what)} ({done} of {self._of})" if what else "nothing was finished")
            error.add_note("an analysis is written once it is whole: nothing of it is kept")

    def __call__(self, what: str, done: int, of: int) -> None:
        """So much of so much is done; another model, or less than before, is another pass."""
        self._of = of
        if what != self._before[0] or done <= self._before[1]:
            self._progress.reset(self._task, total=of, description=printable(what))
        self._before = (what, done)
        self._progress.update(self._task, completed=done)
        self._progress.start()


class HessianBar(_Bar):
    """A Hessian analysis; told of each product (`analyze_hessian`, progress). Where there is no terminal, a
    line for each mini-batch. `total` is mini-batches times models."""

    def __init__(self, total: int) -> None:
        super().__init__("mini-batch", TimeElapsedColumn(), total)
        self.total = total
        self._begun: list[tuple[str, int]] = []
        self._said = ""
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            self._tell()

    def __call__(self, name: str, batch: int, products: int, residual: float) -> None:
        """A product is done."""
        if (name, batch) not in self._begun:
            self._tell()
            self._begun.append((name, batch))
        left = "" if math.isnan(residual) else f", residual {residual:.1e}"
        self._said = f"{name}: {products} products{left}"
        self._progress.update(self._task, completed=len(self._begun) - 1, said=self._said)

    def _tell(self) -> None:
        """A line on the mini-batch before, where there is no terminal."""
        if self._begun and not self._terminal:
            seconds = time.perf_counter() - self._started
            done = f"mini-batch {len(self._begun)} of {self.total}"
            print(f"{done}  {self._said.partition(',')[0]}  {seconds:.0f} s", file=sys.stderr, flush=True)
