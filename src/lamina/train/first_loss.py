"""Whether a step's loss shows that the weights it was computed with are of use."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lamina.train.step_sync import wide

MOST_TIMES = 10.0
"""A loss of more than so many times that of the run's first step is that of weights which are of no use:
untrained ones do better."""


class FirstLoss:
    """The loss of the first step that was taken, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._value = torch.full((), math.nan, dtype=wide(device), device=device)
        self._high = False

    def far_above(self, loss: Float[Tensor, ""], skip: Float[Tensor, ""]) -> Bool[Tensor, ""]:
        """Whether a loss is more than `MOST_TIMES` that of the first step. False before there is one, and for
        a loss that is not a number.

        Args:
            loss: of this step, over all ranks.
            skip: above 0 where the step is not taken; then it is not the first either.
        """
        first = self._value.isnan() & (skip == 0)
        self._value = torch.where(first, loss, self._value)
        return loss > MOST_TIMES * self._value.abs()

    def announcement(self, step: int, high: bool) -> str | None:
        """A sentence where the loss leaves its usual range, or comes back into it; None at other steps. It is
        not for a step that was skipped, whose loss may be no number."""
        if high == self._high:
            return None
        self._high = high
        if high:
            return (
                f"step {step}: the loss is more than {MOST_TIMES:g} times that of the first step; the newest "
                "checkpoint before it is kept until the loss has fallen"
            )
        return f"step {step}: the loss is no more than {MOST_TIMES:g} times that of the first step again"

    def warning(self, proven_step: int) -> str | None:
        """A sentence for the end of a run whose loss is high then; None for others."""
        if not self._high:
            return None
        return (
            f"the run ends with a loss more than {MOST_TIMES:g} times that of its first step: the newest "
            f"weights known to be of use are those of step {proven_step} (--init RUN@STEP starts from a "
            "checkpoint)"
        )

    def saved(self) -> float | None:
        """As JSON, None before there is one; waits for the device."""
        value = float(self._value)
        return None if math.isnan(value) else value

    def restore(self, value: float | None) -> None:
        """Take back what was `saved`."""
        self._value.fill_(math.nan if value is None else value)
