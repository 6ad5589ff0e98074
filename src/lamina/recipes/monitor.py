"""What a run measures of its encoder while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, check_ranges


@dataclass(frozen=True)
class MonitorOptions:
    """Online evaluation of the encoder during pre-training (RankMe, kNN); the weights do not depend on it."""

    images: Annotated[int | None, NOT_NEGATIVE] = None
    """Number of images that each online evaluation uses for RankMe and, where they have labels, for kNN. They
    are drawn as `lamina analyze` does, from the held-out part where the data have one. Unset: 256, or all
    where there are fewer. 0: no evaluation."""
    knn_data: Annotated[str | None, read_unless("images", 0)] = None
    """Labelled images for the kNN evaluation, as many as monitor.images. Unset: the run's own images, where
    they have labels."""
    every_steps: Annotated[int | None, COUNT, read_unless("images", 0)] = None
    """Number of steps between two evaluations. Unset: as often as fits into 2 % of the training time
    (`lamina.callbacks.encoder_monitor.interval`)."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if self.images == 1:
            raise LaminaError(f"monitor.images is {self.images}; give 2 or more, or 0 for none")
        if self.knn_data is not None and self.images == 0:
            raise LaminaError("monitor.knn_data is of no use with monitor.images 0; leave one of them out")
