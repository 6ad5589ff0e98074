"""What a run measures of its encoder while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, check_ranges


@dataclass(frozen=True)
class MonitorOptions:
    """Looks at the encoder now and then; the weights do not depend on them."""

    images: Annotated[int | None, NOT_NEGATIVE] = None
    """Images of each look: for RankMe, and for kNN where they have labels. They are drawn as `lamina analyze`
    does, from the held-out part where the data have one. Unset means 256, or all there are; 0 none."""
    knn_data: Annotated[str | None, read_unless("images", 0)] = None
    """Labelled images for kNN, as many again; unset means the run's own, where they have labels."""
    every_steps: Annotated[int | None, COUNT, read_unless("images", 0)] = None
    """Steps between two looks; unset means so many that all looks take at most 2 % of the time
    (`lamina.callbacks.encoder_monitor.interval`)."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if self.images == 1:
            raise LaminaError(f"monitor.images is {self.images}; give 2 or more, or 0 for none")
        if self.knn_data is not None and self.images == 0:
            raise LaminaError("monitor.knn_data is of no use with monitor.images 0; leave one of them out")
