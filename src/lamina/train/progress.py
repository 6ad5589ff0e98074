"""The progress of a training: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lamina.core.console import make_console

_LINE_EVERY_SECONDS = 5.0


class ProgressBar:
    """A rich progress bar: images/s, time left, loss, learning rate, share of time waiting for data."""

    def __init__(self, step: int, total_steps: int) -> None:
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[row]}", markup=False),
        )
        self._progress = Progress(*columns, console=make_console())
        self._task = self._progress.add_task("", total=total_steps, completed=step, row="")
        self._progress.start()

    def step(self, step: int) -> None:
        """Move the bar; nothing is read from the device."""
        self._progress.update(self._task, completed=step)

    def row(self, row: Mapping[str, Any]) -> None:
        """Show the newest row beside the bar."""
        self._progress.update(self._task, row=summary(row))

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._progress.stop()


class ProgressLines:
    """A line per row, but at most one every five seconds; the first and the last row are always shown."""

    def __init__(self, step: int, total_steps: int) -> None:
        self._start, self._from, self._total = time.monotonic(), step, total_steps
        self._printed = -_LINE_EVERY_SECONDS

    def step(self, step: int) -> None:
        """Nothing: a line is printed for rows alone."""

    def row(self, row: Mapping[str, Any]) -> None:
        now, step = time.monotonic(), row["step"]
        if now - self._printed < _LINE_EVERY_SECONDS and step < self._total:
            return
        self._printed = now
        left = (now - self._start) / max(step - self._from, 1) * (self._total - step)
        self.say(f"step {step}/{self._total}  {summary(row)}  {timedelta(seconds=round(left))} left")

    def say(self, line: str) -> None:
        print(line, flush=True)

    def close(self) -> None:
        """Nothing to put away."""


def show_progress(step: int, total_steps: int) -> ProgressBar | ProgressLines:
    """The bar where the output is a terminal, lines where it goes to a file."""
    return ProgressBar(step, total_steps) if sys.stdout.isatty() else ProgressLines(step, total_steps)


def summary(row: Mapping[str, Any]) -> str:
    """A row in a few words."""
    loss = "no finite loss" if row["loss"] is None else f"loss {row['loss']:.4f}"
    words = [loss, f"lr {row['lr']:.2e}", f"{row['images_per_second']:.1f} images/s"]
    words.append(f"data wait {row['data_wait']:.0%}")
    words += [
        f"{row[name]} {word}"
        for name, word in (("nonfinite", "non-finite"), ("faults", "replacements of bad files"))
        if row[name]
    ]
    return "  ".join(words)
