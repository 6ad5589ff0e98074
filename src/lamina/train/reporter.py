"""All that rank 0 tells the world: files, terminal and callbacks, always in this order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from lamina.batch import Batch, Fault
from lamina.train.callbacks import Callback
from lamina.train.journal import Journal, TensorBoard
from lamina.train.progress import show_progress, summary
from lamina.train.state import Outcome, TrainState


class Reporter:
    """Opened when a run starts or goes on; rank 0 only."""

    def __init__(
        self, folder: Path, state: TrainState, callbacks: Sequence[Callback], tensorboard: bool
    ) -> None:
        self._board = TensorBoard(folder, state.step) if tensorboard else None
        self._journal = Journal(folder, state.step)
        self._progress = show_progress(state.step, state.total_steps)
        self._callbacks = callbacks
        self._told: set[int] = set()

    def start(self, state: TrainState) -> None:
        for callback in self._callbacks:
            callback.on_start(state)

    def say(self, line: str) -> None:
        """A line for train.log and the terminal, control characters removed."""
        line = "".join(c if c.isprintable() else "?" for c in line)
        self._journal.say(line)
        self._progress.say(line)

    def step(self, step: int) -> None:
        self._progress.step(step)

    def row(
        self, row: dict[str, Any], clock: dict[str, float], batch: Batch, task: nn.Module
    ) -> dict[str, Any]:
        """Let callbacks add to the row, write and show it; returns the row as written."""
        for callback in self._callbacks:
            row = {**row, **(callback.on_log(row["step"], {**row, **clock}, batch, task) or {})}
        row = {**row, **clock}
        self._journal.row(row)
        self._journal.say(f"step {row['step']}  {summary(row)}")
        if self._board:
            self._board.row(row)
        self._progress.row(row)
        return row

    def faults(self, faults: Sequence[Fault]) -> str | None:
        """Tell the log, once for each sample, and all callbacks; the first sentence that asks to stop."""
        for fault in faults:
            if fault.index not in self._told:
                self._told.add(fault.index)
                self.say(
                    f"epoch {fault.epoch}: sample {fault.index} is unreadable ({fault.reason}), replaced"
                )
        asked = [callback.on_faults(faults) for callback in self._callbacks]
        return next((sentence for sentence in asked if sentence), None)

    def sync(self) -> None:
        """Rows are on the disk before the checkpoint that counts on them."""
        self._journal.sync()

    def checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        for callback in self._callbacks:
            callback.on_checkpoint(step, folder, task)

    def end(self, outcome: Outcome) -> None:
        """Say how it ended, and let the callbacks finish."""
        self.say(outcome.sentence)
        for callback in self._callbacks:
            callback.on_end(outcome)

    def fail(self, error: BaseException) -> None:
        """The last words of a run that ends by an exception, which nothing here may hide."""
        with suppress(Exception):
            self._journal.say(f"ended by {type(error).__name__}: {' '.join(str(error).split())}")
        for callback in self._callbacks:
            with suppress(Exception):
                callback.on_failure(error)

    def close(self) -> None:
        self._progress.close()
        self._journal.close()
        if self._board:
            self._board.close()

    def callback_states(self) -> dict[str, Any]:
        """The callbacks' states by class name."""
        return {_key(self._callbacks, i): c.state_dict() for i, c in enumerate(self._callbacks)}


def _key(callbacks: Sequence[Callback], i: int) -> str:
    """Class name, and which of that class."""
    name = type(callbacks[i]).__name__
    return f"{name}-{sum(type(c).__name__ == name for c in callbacks[:i])}"


def load_callback_states(callbacks: Sequence[Callback], states: dict[str, Any]) -> None:
    """Give each callback the state it saved; one that is new in this run starts afresh."""
    for i, callback in enumerate(callbacks):
        if (state := states.get(_key(callbacks, i))) is not None:
            callback.load_state_dict(state)
