"""What a run watches: its fusion, and the files it could not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lamina.core.batch import Batch, Fault
from lamina.core.modes import evaluating
from lamina.data import FaultBudget
from lamina.fusion import MultiLevelFusion
from lamina.mim import mim_of
from lamina.supervised import Supervised
from lamina.train import Callback

MOST_IMAGES = 16


class FusionMonitor(Callback):
    """Adds `fusion_weights` and `fusion_shares`, a number for each tap, measured on images of the last batch.

    It runs the encoder once more on at most 16 images per row, so that the step itself carries nothing.
    """

    def on_log(self, step: int, row: dict[str, Any], batch: Batch, task: nn.Module) -> dict[str, Any] | None:
        """The two lists, shallowest tap first; nothing for a method without fusion."""
        watched = task if isinstance(task, Supervised) else mim_of(task)
        if watched is None or not isinstance(watched.fusion, MultiLevelFusion):
            return None
        with evaluating(task):
            features = watched.features(next(batch.split(MOST_IMAGES)))
            if isinstance(watched, Supervised):  # what no head reads is not fused
                features = watched.read(features)
            measured = watched.fusion.measure(features)
        return {name: values.tolist() for name, values in measured.items()}


class FaultMonitor(Callback):
    """Counts unreadable files of all ranks against one budget, and keeps the count over a resume.

    It is the only one to count: `budget` may be the loader's own.
    """

    required = True

    def __init__(self, budget: FaultBudget) -> None:
        self.budget = budget

    def on_faults(self, faults: Sequence[Fault]) -> str | None:
        """Add them; past the limit, ask the run to stop."""
        return self.budget.add(faults)

    def state_dict(self) -> dict[str, Any]:
        """The files known so far."""
        return {"files": self.budget.rows()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The files known before the resume."""
        self.budget.restore(state["files"])
