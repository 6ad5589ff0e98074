"""Which images a classifier is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.ranges import COUNT, check_ranges
from lamina.evaluate.robustness.corruptions.kinds import SEVERITIES, check_corruption

Published = Literal["imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch"]


@dataclass(frozen=True)
class RobustnessOptions:
    """Which images a classifier is tested on."""

    published: Published | None = None
    """A set as published, whose folder is DATA; unset means that the test images of DATA are corrupted
    here."""
    kinds: tuple[str, ...] = ()
    """Corruptions; unset means all fifteen (without frost where its photographs are not installed)."""
    images: Annotated[int | None, COUNT] = None
    """So many of the test images, drawn by the seed; unset means all."""
    probe_data: str | None = None
    """Labelled images whose training part a linear probe is fitted on, for an encoder that is no classifier;
    unset means DATA's own."""
    pool: Literal["cls", "mean"] = "mean"
    """What of the last layer that probe reads: the mean of the patches, or the class token."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        for kind in self.kinds:
            check_corruption(kind, SEVERITIES[0])
