"""The output of rank 0: files, terminal and callbacks, always in this order."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from lamina.core.batch import Batch, Fault, Remark
from lamina.core.frozen import modes_kept
from lamina.core.terminal import lost_output, why
from lamina.core.text import printable
from lamina.train.callbacks import Callback
from lamina.train.expected_end import ExpectedEnd
from lamina.train.log_files import LogFiles, TensorBoard, finite
from lamina.train.progress import show_progress, summary
from lamina.train.state import Outcome, TrainState

T = TypeVar("T")


class RunLog:
    """Opened when a run starts or goes on; rank 0 only.

    What only shows the run (the terminal, TensorBoard, callbacks that are not `required`) cannot end it: what
    goes wrong there is said once, with the traceback in train.log. What lamina's logger warns of meanwhile is
    written into train.log too.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainState,
        callbacks: Sequence[Callback],
        tensorboard: bool,
        known_rows: int | None = None,
    ) -> None:
        self._board = TensorBoard(folder, state.step) if tensorboard else None
        self._files = LogFiles(folder, state.step, known_rows)
        self._progress = show_progress(state.step, state.total_steps)
        self._end = ExpectedEnd(state.total_steps)
        self._callbacks = callbacks
        self._reported: set[int] = set()
        self._failed: set[str] = set()
        self._warnings = _Warnings(self.say)
        logging.getLogger("lamina").addHandler(self._warnings)
        self._remarked: set[str] = set()

    def start(self, state: TrainState) -> None:
        if self._files.losses:
            self.say(self._files.losses)
        for callback in self._callbacks:
            self._call(callback, partial(callback.on_start, state))

    def first_step(self) -> None:
        for callback in self._callbacks:
            self._call(callback, callback.on_first_step)

    def resume(self, step: int, folder: Path, task: nn.Module) -> None:
        """What callbacks keep of a checkpoint is brought to that of the one which was restored."""
        for callback in self._callbacks:
            self._call(callback, partial(callback.on_resume, step, folder, task), task)

    @property
    def rows(self) -> int:
        """How many rows metrics.jsonl has."""
        return self._files.rows

    def say(self, line: str) -> None:
        """A line for train.log and the terminal, hidden characters as escapes."""
        line = printable(line)
        self._files.say(line)
        self._show(partial(self._progress.say, line))

    def step(self, step: int) -> None:
        self._show(partial(self._progress.step, step))
        if told := self._end.after(step, time.monotonic()):
            self.say(told)

    def row(
        self, row: dict[str, Any], clock: dict[str, float], batch: Batch, task: nn.Module
    ) -> dict[str, Any]:
        """Let callbacks add to the row, write and show it; returns the row as written."""
        for callback in self._callbacks:
            ask = partial(callback.on_log, row["step"], {**row, **clock}, batch, task)
            added = self._call(callback, partial(_as_json, ask), task)
            row = {**row, **(added or {})}
        row = {**row, **clock}
        self._files.row(row)
        self._files.say(f"step {row['step']}  {summary(row)}")
        if self._board:
            self._try("TensorBoard", partial(self._board.row, row))
        self._show(partial(self._progress.row, row))
        return row

    def faults(self, faults: Sequence[Fault]) -> str | None:
        """Log each unreadable sample once and pass all to the callbacks; returns the first reason to stop."""
        for fault in faults:
            if fault.index not in self._reported:
                self._reported.add(fault.index)
                name = fault.name or f"sample {fault.index}"
                self.say(
                    f"epoch {fault.epoch}: {name} cannot be read ({fault.reason}); another image takes its "
                    "place, in later epochs too"
                )
        reasons = [self._call(callback, partial(callback.on_faults, faults)) for callback in self._callbacks]
        return next((reason for reason in reasons if reason), None)

    def remarks(self, remarks: Sequence[Remark]) -> None:
        """What is worth knowing of images that were read: one line for each kind in a run."""
        for remark in remarks:
            if remark.kind not in self._remarked:
                self._remarked.add(remark.kind)
                about = f" ({remark.about})" if remark.about else ""
                self.say(
                    f"{remark.name}: {remark.kind}{about}; said once, `lamina data check` counts such images"
                )

    def sync(self) -> None:
        """Rows are on the disk before the checkpoint that counts on them."""
        self._files.sync()

    def checkpoint(self, step: int, folder: Path, task: nn.Module, beside: bool | None = None) -> None:
        """Tell the callbacks of a checkpoint: all of them, or those alone that may, or may not, be called
        `beside` the training."""
        for callback in self._callbacks:
            if beside is None or callback.beside_training is beside:
                self._call(callback, partial(callback.on_checkpoint, step, folder, task), task)

    def end(self, outcome: Outcome) -> None:
        """Say how it ended, and let the callbacks finish."""
        self.say(outcome.sentence)
        for callback in self._callbacks:
            self._call(callback, partial(callback.on_end, outcome))

    def fail(self, error: BaseException) -> None:
        """Log the exception that ends a run, and pass it to the callbacks; nothing here may hide it."""
        with suppress(Exception):
            sentences = "; ".join([str(error), *getattr(error, "__notes__", [])])
            self._files.say(f"ended by {type(error).__name__}: {' '.join(sentences.split())}")
        for callback in self._callbacks:
            with suppress(Exception):
                callback.on_failure(error)

    def close(self) -> None:
        """Put everything away, and let nothing of it hide how the run ended."""
        logging.getLogger("lamina").removeHandler(self._warnings)
        self._show(self._progress.close)
        if self._board:
            self._try("TensorBoard", self._board.close)
        self._files.close()

    def callback_states(self) -> dict[str, Any]:
        """The callbacks' states by class name; one that cannot be had is left out."""
        states = {}
        for i, callback in enumerate(self._callbacks):
            state = self._call(callback, partial(_as_json, callback.state_dict))
            if state is not None:
                states[_key(self._callbacks, i)] = state
        return states

    # What must not end a run

    def _call(self, callback: Callback, action: Callable[[], T], task: nn.Module | None = None) -> T | None:
        """What a callback gives, and the task's modes as they were; None where it failed and may."""
        if task is not None:
            with modes_kept(task):
                return self._call(callback, action)
        return action() if callback.required else self._try(type(callback).__name__, action)

    def _try(self, who: str, action: Callable[[], T]) -> T | None:
        try:
            return action()
        except Exception as error:
            lines = traceback.format_exc().splitlines()
            self._complain(
                who, f"{who} failed ({type(error).__name__}: {why(error)}); training goes on", lines
            )
            return None

    def _show(self, action: Callable[[], object]) -> None:
        """Show something on the terminal, if it is still there."""
        self._try("the progress display", action)
        if lost := lost_output():
            self._complain("output", f"standard output cannot be written ({why(lost)}); training goes on")

    def _complain(self, who: str, line: str, details: Sequence[str] = ()) -> None:
        """Say a failure once for each source; the details go to train.log alone."""
        if who in self._failed:
            return
        self._failed.add(who)
        self.say(line)
        for detail in details:
            self._files.say(detail)


class _Warnings(logging.Handler):
    """Hands what lamina's logger warns of to the run, in place of standard error."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # as every handler: what cannot be said is no error of who warned
            self._say(record.getMessage())


def _as_json(ask: Callable[[], dict[str, Any] | None]) -> dict[str, Any] | None:
    """What `ask` gives, or an error where it cannot be written as JSON."""
    given = ask()
    json.dumps(finite(given), allow_nan=False)
    return given


def _key(callbacks: Sequence[Callback], i: int) -> str:
    """Class name, and which of that class."""
    name = type(callbacks[i]).__name__
    return f"{name}-{sum(type(c).__name__ == name for c in callbacks[:i])}"


def load_callback_states(
    callbacks: Sequence[Callback], states: dict[str, Any], say: Callable[[str], None]
) -> None:
    """Give each callback the state it saved; one that is new in this run starts afresh, and so does, said
    in a line, one that is not `required` and cannot read its state."""
    for i, callback in enumerate(callbacks):
        if (state := states.get(_key(callbacks, i))) is None:
            continue
        try:
            callback.load_state_dict(state)
        except Exception as error:
            if callback.required:
                raise
            name = type(callback).__name__
            say(f"{name} starts afresh: its state cannot be read ({type(error).__name__}: {why(error)})")
