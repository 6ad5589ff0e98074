"""Files that a run could not read: counted over all ranks, and when there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.core.batch import Fault
from lamina.data.loading.bad_files import FaultBudget
from lamina.train.callbacks import Callback


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
