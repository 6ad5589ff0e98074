"""The last good step of a run that an error ends is saved before it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from lamina.core.terminal import why
from lamina.train.buffers import BufferKeeper
from lamina.train.layout import Layout
from lamina.train.run_log import RunLog
from lamina.train.saver import Saver
from lamina.train.state import TrainState
from lamina.train.step_sync import AsyncFlags, StepEvents


@runtime_checkable
class Rescuable(Protocol):
    """What `rescue` needs of a run (`lamina.train.trainer`)."""

    state: TrainState
    run_log: RunLog | None
    async_flags: AsyncFlags
    buffers: BufferKeeper
    layout: Layout
    saver: Saver
    whole: bool
    """False while the weights are being moved: they are of no step then."""
    saved_step: int | None
    failed_to_save: bool

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint of the current step is, or will be."""

    def count(self, event: StepEvents, /) -> None:
        """Add what a finished step brought to the state."""

    def write(self, run_log: RunLog, /) -> None:
        """Take a checkpoint of the current step, without the other ranks."""


def rescue(run: Rescuable, error: BaseException) -> None:
    """Save the step that was done last, and note at the error from where the run can be resumed.

    Rank 0 does it alone, since the other ranks may be gone. Nothing is saved where no step was taken yet,
    where saving this step is what failed, and where weights are in shares, which rank 0 cannot gather alone.
    A step in which the error fell leaves no trace, unless the weights were being moved: then the checkpoint
    before is the last one.
    """
    step, total = run.state.step, run.state.total_steps
    if run.run_log is None or step == 0 or run.failed_to_save:
        return
    if not run.whole:
        error.add_note("the step in which this happened was not done whole, and is not saved")
        return
    try:
        run.saver.finish()
        if run.saved_step != step:
            if run.layout.cut:
                error.add_note(
                    f"step {step} is not saved, since its weights are in shares (train.shard fsdp); --resume "
                    "goes on from the checkpoint before"
                )
                return
            for event in run.async_flags.drain():
                run.count(event)
            run.buffers.put_back(torch.ones(()))
            run.write(run.run_log)
            run.saver.finish()
    except Exception as second:
        error.add_note(f"step {step} of {total} could not be saved ({why(second)})")
        return
    error.add_note(f"step {step} of {total} is saved in {run.checkpoint_path}; go on with --resume")
