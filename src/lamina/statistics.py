"""Means over seeds and their 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from lamina.errors import LaminaError


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half the width of its 95 % interval by Student's t; None of a single seed."""

    mean: float
    half: float | None
    n: int

    def tell(self, scale: float = 1.0, digits: int = 1, sign: bool = False) -> str:
        """The mean and its half width, such as "71.3 ± 0.8"."""
        mean = f"{scale * self.mean:{'+' if sign else ''}.{digits}f}"
        return mean if self.half is None else f"{mean} ± {scale * self.half:.{digits}f}"

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half is not None and abs(self.mean) > self.half


def verdict(found: Estimate) -> str:
    """What must be said after a difference whose interval does not leave out zero; else nothing."""
    if found.clear:
        return ""
    return " (one seed, no interval)" if found.half is None else " (not told apart from none)"


def seeds_of(n: int) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{n} seed{'s' if n != 1 else ''}"


def estimate(values: Sequence[float]) -> Estimate:
    """Of one number for each seed."""
    n = len(values)
    if n == 0:
        raise LaminaError("there is nothing to take the mean of; run at least one seed")
    mean = float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, 1)
    error = float(np.std(values, ddof=1)) / n**0.5
    return Estimate(mean, float(t.ppf(0.975, n - 1)) * error, n)


def difference(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Of the differences, seed by seed: both arms of a seed start from the same weights, order and masks."""
    return estimate([a - b for a, b in zip(values, others, strict=True)])


def first_reach(epochs: Sequence[float], scores: Sequence[float], goal: float) -> float | None:
    """The epoch at which a curve first reaches `goal`, by lines between its points; None if it never does."""
    before: tuple[float, float] | None = None
    for epoch, score in zip(epochs, scores, strict=True):
        if score >= goal:
            if before is None or score == before[1]:
                return epoch
            share = (goal - before[1]) / (score - before[1])
            return before[0] + share * (epoch - before[0])
        before = (epoch, score)
    return None


def uncorrected(n: int) -> str:
    """The caution that belongs under `n` differences with an interval of 95 % each."""
    return (
        f"{n} differences are told and their intervals are not corrected for that: of {n} that are none, "
        f"about {0.05 * n:.1f} would look clear."
    )
