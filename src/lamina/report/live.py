"""The report of a run that is still training: pictures and page are refreshed at intervals.

What needs the method, its forward passes on a few images, happens between two steps. What they gave is drawn
and written by a thread of low priority, so that neither the next step nor another rank waits for it.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from lamina.core.batch import Batch, Fault
from lamina.data.sources import Source
from lamina.mim import mim_of
from lamina.report.bad_files import SkippedFile, read_skipped, write_skipped
from lamina.report.gallery import Gallery, Seen, draw
from lamina.report.page import write_report
from lamina.runs.run import Run
from lamina.train.callbacks import Callback
from lamina.train.state import Outcome, TrainState

log = logging.getLogger("lamina")

LARGEST_SHARE = 0.005
"""Share of the training time that may go into the report, the work of its thread included: after a slow
refresh the next one comes later. As much is left for `lamina.callbacks.encoder_monitor`."""


class LiveReport(Callback):
    """Keeps `report.html` of a run up to date. A failure is reported once and never stops the training.

    Args:
        run: the run's folder.
        gallery: the images of its pictures, or a function that reads them when training starts; by default
            those of the first batch that the run meets.
        name_of: the name of a sample by its index (`Source.name`), for the list of skipped files.
        every_seconds: the shortest time between two refreshes; also what the page tells the browser.
    """

    def __init__(
        self,
        run: Path,
        gallery: Gallery | Callable[[], Gallery] | None = None,
        name_of: Callable[[int], str] | None = None,
        every_seconds: float = 20.0,
    ) -> None:
        self.run = run
        self.gallery = gallery if isinstance(gallery, Gallery) else None
        self._read_gallery = gallery if not isinstance(gallery, Gallery) else None
        self.every_seconds = every_seconds
        self._name_of = name_of or (lambda index: f"sample {index}")
        self._skipped: set[SkippedFile] = set()
        self._next = 0.0
        self._thread: ThreadPoolExecutor | None = None
        self._drawing: Future[float] | None = None
        self._seconds = 0.0
        self._drawn_step: int | None = None
        self._task: nn.Module | None = None
        self._warned = False

    @classmethod
    def for_source(cls, run: Path, source: Source, every_seconds: float = 20.0) -> LiveReport:
        """The report of a run on `source`, with pictures of that source's images under their names."""
        return cls(run, lambda: Gallery.of_source(source, Run(run).recipe()), source.name, every_seconds)

    def on_start(self, state: TrainState) -> None:
        """Show the run's name and recipe before the first step is done."""
        self._guard(self._start)

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """Refresh pictures and page where it is time to. The row itself shows in the next refresh."""
        if self.gallery is None:
            self._guard(lambda: self._take(batch))
        self._task = task
        if self._drawing is None or self._drawing.done():
            self._guard(self._finish)
            if time.monotonic() >= self._next:
                self._guard(lambda: self._refresh(step))
        return None

    def on_faults(self, faults: Sequence[Fault]) -> str | None:
        """Keep names and reasons of samples that could not be read."""
        self._guard(lambda: self._skip(faults))
        return None

    def on_end(self, outcome: Outcome) -> None:
        """The last pictures, and a page that stands still."""
        self.wait()
        self._guard(lambda: self._draw(self._look(outcome.step)))
        self._guard(self._write_last)

    def on_failure(self, error: BaseException) -> None:
        """A page that stands still, with what there is."""
        self.wait()
        self._guard(self._write_last)

    def wait(self) -> None:
        """Until the refresh that is under way is on the disk, and without the thread from then on."""
        self._guard(self._finish)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _start(self) -> None:
        self._skipped |= set(read_skipped(self.run, []))
        if self._read_gallery is not None:
            self.gallery = self._read_gallery()
        self._write()

    def _take(self, batch: Batch) -> None:
        self.gallery = Gallery.of_batch(batch)

    def _refresh(self, step: int) -> None:
        """Start a refresh; the time until the next one follows from what it costs, see `_finish`."""
        started = time.monotonic()
        try:
            seen = self._look(step)
        finally:
            ended = time.monotonic()
            self._seconds, self._next = ended - started, ended + self.every_seconds
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "lamina-report", _low_priority)
        self._drawing = self._thread.submit(self._draw_and_write, seen)

    def _finish(self) -> None:
        """Wait for the refresh that was started, if there is one; its error is raised here."""
        drawing, self._drawing = self._drawing, None
        if drawing is not None:
            seconds = self._seconds + drawing.result()
            self._next = max(self._next, time.monotonic() + seconds / LARGEST_SHARE)

    def _draw_and_write(self, seen: Seen | None) -> float:
        """What the thread does; the processor seconds that it took."""
        started = time.thread_time()
        self._draw(seen)
        self._write()
        return time.thread_time() - started

    def _look(self, step: int) -> Seen | None:
        """What the method makes of the gallery; None where there is nothing to draw."""
        method = None if self._task is None else mim_of(self._task)
        if self.gallery is None or method is None or self._drawn_step == step:
            return None
        return Seen.of(method, self.gallery, step)

    def _draw(self, seen: Seen | None) -> None:
        if seen is not None:
            draw(seen, Run(self.run).pictures)
            self._drawn_step = seen.step

    def _write(self) -> None:
        write_report([self.run], Run(self.run).report_file, refresh_seconds=max(5, round(self.every_seconds)))

    def _write_last(self) -> None:
        write_report([self.run], Run(self.run).report_file)

    def _skip(self, faults: Sequence[Fault]) -> None:
        met = {SkippedFile(fault.reason, self._name_of(fault.index)) for fault in faults}
        if not met <= self._skipped:
            self._skipped |= met
            write_skipped(self.run, self._skipped)

    def _guard(self, action: Callable[[], object]) -> None:
        """A report must not cost a run: what goes wrong is logged once, with the traceback in train.log."""
        try:
            action()
        except Exception as error:
            if not self._warned:
                self._warned = True
                log.warning("the report could not be refreshed (%s); training goes on", error)
                with (
                    suppress(OSError),
                    Run(self.run).log_file.open("a", encoding="utf-8", newline="\n") as file,
                ):
                    file.write(traceback.format_exc())


def _low_priority() -> None:
    """Let the thread that calls this give way to the training; Linux alone has priorities of threads."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
