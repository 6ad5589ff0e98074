"""Numbers that are measured on the run of every seed, and how tables and sentences write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.core.intervals import SHARE, SHARES_APART, Estimate, difference, estimate

Seeds = Sequence[Mapping[str, Any]]
"""What was measured on the runs of one arm, one entry for each seed."""


@dataclass(frozen=True)
class Quantity:
    """One number of a run: how it is read off what was measured, and how it is written.

    `is_share`: it lies in [0, 1], and so do its intervals. `scale` is what it is multiplied by.
    """

    name: str
    read: Callable[[Mapping[str, Any]], float]
    is_share: bool = True
    scale: float = 100.0
    digits: int = 1

    def values(self, seeds: Seeds) -> list[float]:
        """The number of each seed."""
        return [self.read(seed) for seed in seeds]

    def estimate(self, seeds: Seeds) -> Estimate:
        """Mean and interval over seeds."""
        return estimate(self.values(seeds), SHARE if self.is_share else None)

    def difference(self, seeds: Seeds, others: Seeds) -> Estimate:
        """Mean and interval of the differences of two arms, seed by seed."""
        bounds = SHARES_APART if self.is_share else None
        return difference(self.values(seeds), self.values(others), bounds)

    def mean(self, seeds: Seeds) -> str:
        """The mean and its interval, as text."""
        return self.estimate(seeds).tell(self.scale, self.digits)

    def change(self, seeds: Seeds, others: Seeds) -> str:
        """The difference of two arms and its interval, as text."""
        return self.difference(seeds, others).tell(self.scale, self.digits, sign=True)


KNN = Quantity("kNN, %", lambda run: run["knn"])
LINEAR = Quantity("linear, %", lambda run: run["linear"])
PROBES = {"kNN": KNN, "linear probe": LINEAR}
"""By their names in figures and sentences."""
HIGH_BAND = Quantity("high band, % of amplitude", lambda run: run["spectrum"]["share_high"])
