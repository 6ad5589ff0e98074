"""What may be added to a run from outside: monitors, reports, exports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from lamina.core.batch import Batch, Fault
from lamina.train.state import Outcome, TrainState


class Callback:
    """Does nothing; override what you need.

    Called on rank 0 only, in the order in which the callbacks were given. `task` is the bare module, never
    a wrapper; its modes are put back after each call, and who touches its gradients puts them back. Random
    numbers may be drawn: each step seeds torch anew. What must survive a resume goes through `state_dict`.

    An exception that is raised here does not end the run: it is said once, with its traceback in train.log,
    and training goes on, unless the callback is `required`.
    """

    required: ClassVar[bool] = False
    """Whether the run ends, with its step saved, where this callback fails: for what the run promises, such
    as its exported encoder, and not for what only watches it."""

    beside_training: ClassVar[bool] = False
    """Whether `on_checkpoint` may be called in the thread that writes the checkpoint, while training goes on:
    it then draws no random numbers of torch and shares nothing with the callback's other methods. Else it is
    called between two steps, once the checkpoint is in place."""

    def on_start(self, state: TrainState) -> None:
        """Before the first step of this process; `state.step` is above 0 after a resume."""

    def on_first_step(self) -> None:
        """After the first step of this process: what could not compute would have failed by now."""

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """At each row of metrics.jsonl, before it is written; what is returned is added to the row.

        `batch` is rank 0's share of the last global batch, on the device.
        """

    def on_faults(self, faults: Sequence[Fault]) -> str | None:
        """Samples that could not be read, gathered from all ranks (on CUDA one step late).

        A sentence asks the run to stop, and says why; it stops on all ranks alike, with the current step
        saved. The other callbacks see the faults all the same.
        """

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        """After a checkpoint is in place in `folder`; not where there is nothing to keep: no step was taken
        yet, the run stops for non-finite steps, or its weights are not finite.

        `task` has the weights of that step. With `checkpoint_async` it is a copy in host memory, which the
        next checkpoint overwrites, and more steps may have been taken since; what no checkpoint holds, such
        as a frozen teacher, it shares with the module that is trained."""

    def on_resume(self, step: int, folder: Path, task: nn.Module) -> None:
        """After `on_start`, where the checkpoint in `folder` was restored.

        What is kept beside checkpoints may be of another one, or damaged, and is made anew here.
        """

    def on_end(self, outcome: Outcome) -> None:
        """After the last step and its checkpoint, whatever the reason."""

    def on_failure(self, error: BaseException) -> None:
        """In place of `on_end`, where the run ends by an exception; what is raised here is dropped."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a resume, as JSON; saved with each checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave; called before `on_start` on a resume."""
