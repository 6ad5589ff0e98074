"""The checkpoints of a run: written while training goes on, or while it waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.train import checkpoint
from lamina.train.checkpoint import CHECKPOINTS, Checkpoint, Retention
from lamina.train.divergence import is_sound, proven_step, weights_finite
from lamina.train.host_copy import HostCopy, NotCopied
from lamina.train.options import TrainOptions
from lamina.train.run_log import RunLog


class Saver:
    """Rank 0's writer of checkpoints, of which one at most is being written.

    With `checkpoint_async` the caller of `save` waits for a copy in host memory alone. Files, digests,
    waiting for the disk, the rename, the removal of old checkpoints and those callbacks that allow it follow
    in a thread, in the order in which they would happen without one. What fails there is raised by `finish`,
    which the next `save` calls first.
    """

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        self._folder, self._checkpoints = folder, folder / CHECKPOINTS
        self._retention = Retention(self._checkpoints, options.keep_checkpoints, is_sound, proven_step)
        self._copy = HostCopy() if options.checkpoint_async else None
        self._threads = ThreadPoolExecutor(1, "lamina-checkpoint")
        self._writing: Future[bool] | None = None
        self._then: Callable[[], None] = lambda: None
        self._error: Exception | None = None

    def save(
        self,
        step: int,
        task: nn.Module,
        optimizer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        run_log: RunLog,
        *,
        useful: bool,
    ) -> None:
        """Take a checkpoint of `task` and the optimiser's tensors as they are now.

        Args:
            state: what else belongs to it, as JSON.
            useful: whether callbacks are told of it, if its weights are finite.

        Raises:
            LaminaError: where it, or the one before it, could not be written.
        """
        self.finish()
        copied = self._copied(task, optimizer, run_log)
        own, tensors = copied or (task, optimizer)
        kept = dict(state) if copied is None else deepcopy(dict(state))
        content = Checkpoint(checkpoint.model_tensors(own), dict(tensors), kept)
        write = partial(self._write, step, content, useful, run_log)
        tell = partial(self._tell, step, own, run_log)
        if copied is None:
            _write_and_tell(write, partial(tell, None))
            return
        self._then = partial(tell, False)
        self._writing = self._threads.submit(_write_and_tell, write, partial(tell, True))

    def _copied(
        self, task: nn.Module, optimizer: Mapping[str, Tensor], run_log: RunLog
    ) -> tuple[nn.Module, dict[str, Tensor]] | None:
        """Copies that training does not change; None where checkpoints are written while it waits."""
        if self._copy is None:
            return None
        try:
            return self._copy.module(task), self._copy.tensors(optimizer)
        except NotCopied as error:
            self._copy = None
            run_log.say(f"training waits while checkpoints are written: no copy can be made ({error})")
            return None

    @property
    def failed(self) -> bool:
        """Whether a checkpoint is known to have failed; the next `save` raises why."""
        writing = self._writing
        failed = writing is not None and writing.done() and writing.exception() is not None
        return failed or self._error is not None

    def follow(self) -> None:
        """Where a checkpoint was put in place since the last call, tell the callbacks that wait for it."""
        if self._writing is not None and self._writing.done():
            try:
                self.finish()
            except Exception as error:
                self._error = error

    def finish(self) -> None:
        """Wait until the last checkpoint is in place, and the callbacks were told; raises what failed."""
        error, self._error = self._error, None
        if error is not None:
            raise error
        if self._writing is not None:
            told = False
            try:
                told = self._writing.result()
            finally:
                if self._writing.done():  # not where a signal ended the waiting: the next one waits again
                    self._writing = None
            if told:
                self._then()

    def close(self) -> None:
        """Wait for the thread; what failed in it was raised by `finish`."""
        self._threads.shutdown()

    def _write(self, step: int, content: Checkpoint, useful: bool, run_log: RunLog) -> bool:
        """Put the checkpoint in its place and remove old ones; returns whether callbacks are to be told."""
        finite = weights_finite(content.model)
        with self._refused(step):
            run_log.sync()
            state = {**content.state, "weights_finite": finite}
            checkpoint.write(self._checkpoints, step, content._replace(state=state))
            self._retention.prune()
        return finite and useful

    def _tell(self, step: int, task: nn.Module, run_log: RunLog, beside: bool | None) -> None:
        with self._refused(step):
            run_log.checkpoint(step, self._checkpoints / f"step-{step}", task, beside)

    @contextmanager
    def _refused(self, step: int) -> Iterator[None]:
        """A disk that refuses is an error for users."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise LaminaError(
                f"step {step} could not be saved in {self._folder} ({error}); "
                "remove the cause, and resume with --resume"
            ) from error


def _write_and_tell(write: Callable[[], bool], tell: Callable[[], None]) -> bool:
    """Write a checkpoint, and tell callbacks where they are to be told, which is returned."""
    told = write()
    if told:
        tell()
    return told
