"""Means over seeds and their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri
from scipy.stats import t

from lamina.core.errors import LaminaError

Bounds = tuple[float, float]
SHARE: Bounds = (0.0, 1.0)
"""Where an accuracy lies, and any other share of a whole."""
SHARES_APART: Bounds = (-1.0, 1.0)
"""Where the difference of two shares lies."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its 95 % interval by Student's t (`interval_within`); None of a single seed."""

    mean: float
    interval: tuple[float, float] | None
    n: int

    def tell(self, scale: float = 1.0, digits: int = 1, sign: bool = False) -> str:
        """The mean and its interval: "71.3 ± 0.8", or "99.1 (97.2 to 99.7)" where the sides differ."""

        def shown(value: float) -> str:
            return f"{scale * value:{'+' if sign else ''}.{digits}f}"

        if self.interval is None:
            return shown(self.mean)
        low, high = self.interval
        below, above = (f"{scale * side:.{digits}f}" for side in (self.mean - low, high - self.mean))
        if below == above:
            return f"{shown(self.mean)} ± {above}"
        return f"{shown(self.mean)} ({shown(low)} to {shown(high)})"

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


def interval_within(mean: float, half: float, bounds: Bounds | None = None) -> tuple[float, float]:
    """`mean` ± `half`; of what lies within `bounds` the same on the logit scale, which cannot leave them.

    The half width is carried to the logit of the mean's place between the bounds by the delta method, and
    both ends are carried back: the interval "logit" of R's `survey::svyciprop` (Korn and Graubard, 1998).
    Where `half` is small beside the distance to the bounds, it is `mean` ± `half` again. Values that are all
    at a bound have no width, as they have none without bounds.

    Raises:
        LaminaError: for a mean outside of its bounds.
    """
    if bounds is None or half == 0 or math.isnan(mean):
        return mean - half, mean + half
    low, high = bounds
    if not low < mean < high:
        raise LaminaError(f"a mean of {mean} with a spread cannot be of values between {low:g} and {high:g}")
    place = (mean - low) / (high - low)
    width = half / (high - low) / (place * (1 - place))
    ends = expit(logit(place) + width * np.array([-1.0, 1.0]))
    return low + (high - low) * float(ends[0]), low + (high - low) * float(ends[1])


def verdict(found: Estimate) -> str:
    """What must be said after a difference whose interval does not leave out zero; else nothing."""
    if found.clear:
        return ""
    return " (one seed, no interval)" if found.interval is None else " (not told apart from none)"


def seeds_of(n: int) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{n} seed{'s' if n != 1 else ''}"


def estimate(values: Sequence[float], bounds: Bounds | None = None) -> Estimate:
    """Mean and interval of one number for each seed; all numbers lie within `bounds`, where given (`SHARE`).

    Raises:
        LaminaError: where there is no number.
    """
    n = len(values)
    if n == 0:
        raise LaminaError("there is nothing to take the mean of; run at least one seed")
    mean = float(np.mean(values))
    if n == 1:
        return Estimate(mean, None, 1)
    error = 0.0 if len(set(values)) == 1 else float(np.std(values, ddof=1)) / n**0.5
    return Estimate(mean, interval_within(mean, float(t.ppf(0.975, n - 1)) * error, bounds), n)


def difference(values: Sequence[float], others: Sequence[float], bounds: Bounds | None = None) -> Estimate:
    """Mean and interval of the differences of two arms, seed by seed: both arms of a seed have the same first
    weights, order and masks.

    `bounds` are those of the differences (`SHARES_APART`).
    """
    return estimate([a - b for a, b in zip(values, others, strict=True)], bounds)


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


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927): of sensible width at 0 % and at 100 % too.

    It speaks of the choice of test samples alone, not of the seeds of pre-training.
    """
    if n <= 0 or not 0 <= correct <= n:
        raise LaminaError(f"an interval needs 0 <= correct <= n and n > 0, not {correct} of {n}")
    z = float(ndtri(0.5 + confidence / 2))
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return (0.0 if correct == 0 else low, 1.0 if correct == n else high)
