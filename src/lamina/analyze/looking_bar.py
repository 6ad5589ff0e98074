"""How an analysis looks while it runs: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lamina.data import printable


class LookingBar:
    """On stderr; told what is being done, how much of it is done, and how much there is."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("{task.description}", markup=False),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None)
        self._before = ("", 0)

    def __enter__(self) -> LookingBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: int, of: int) -> None:
        """So much of so much is done; another model, or less than before, is another pass."""
        if what != self._before[0] or done <= self._before[1]:
            self._progress.reset(self._task, total=of, description=printable(what))
        self._before = (what, done)
        self._progress.update(self._task, completed=done)
        self._progress.start()
