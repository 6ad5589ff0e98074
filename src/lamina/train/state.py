"""How far a run has come, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

BAD_FILES_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 75
NONFINITE_EXIT_CODE = 70

Reason = Literal["finished", "interrupted", "nonfinite", "bad files"]


@dataclass
class TrainState:
    """How far a run has come; saved with each checkpoint."""

    total_steps: int
    """Length of the run."""

    step: int = 0
    """Optimiser steps done, skipped ones included: also the number of global batches consumed."""

    micro_batch_size: int | None = None
    """The size that was found to fit, where none was given."""

    lr_sum: float = 0.0
    """Sum of the learning rates of the steps done."""

    nonfinite: int = 0
    """Steps skipped because a loss or gradient was not finite."""

    skipped_in_a_row: int = 0
    """Steps up to this one that changed nothing: those, and with fp16 those whose scaled gradient
    overflowed."""

    proven_step: int = 0
    """The newest step whose weights are known to be of use: the next step that was taken had, with them, a
    finite loss and gradient, and a loss no more than `first_loss.MOST_TIMES` that of the run's first step."""

    faults: int = 0
    """Samples that could not be read and were replaced, over all ranks."""

    seconds: float = 0.0
    """Time spent training, earlier parts of a resumed run included."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: finished, interrupted by a signal, or stopped for too many non-finite steps (or at its
    end without finite weights, or without any step taken) or for files that could not be read."""

    reason: Reason
    step: int
    total_steps: int
    checkpoint: Path
    row: dict[str, Any]
    """The last row of metrics.jsonl; empty where none was written."""

    why: str = ""
    """Why a callback stopped the run (too many unreadable files), as a sentence; else empty."""

    @property
    def exit_code(self) -> int:
        """0 finished; 75 interrupted (EX_TEMPFAIL: resume or requeue); 70 non-finite (EX_SOFTWARE); 2 bad
        files, as for other data that do not fit.

        torchrun does not pass these on: it ends with 1 after any other code than 0.
        """
        return {
            "finished": 0,
            "interrupted": INTERRUPTED_EXIT_CODE,
            "nonfinite": NONFINITE_EXIT_CODE,
            "bad files": BAD_FILES_EXIT_CODE,
        }[self.reason]

    @property
    def _untrained(self) -> str:
        """What has to be said of a run that took its steps and moved no weight."""
        still = self.row.get("lr_sum") == 0
        return "; the learning rate of each step was 0, so nothing was trained" if still else ""

    @property
    def sentence(self) -> str:
        """How it ended, in words."""
        at = f"step {self.step} of {self.total_steps}, saved in {self.checkpoint}"
        return {
            "finished": f"finished: {at}{self._untrained}",
            "interrupted": f"interrupted by a signal: {at}; go on with --resume",
            "nonfinite": f"stopped, too many steps with a loss or gradient that is not finite: {at}; "
            "--resume with a lower base_lr, another clip_grad or another precision continues from the last "
            "good checkpoint",
            "bad files": f"stopped, too many bad files: {self.why}; {at}",
        }[self.reason]
