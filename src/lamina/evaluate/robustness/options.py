"""Options of robustness: the images that a classifier is tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, check_ranges
from lamina.evaluate.robustness.corruptions.kinds import SEVERITIES, check_corruption

Published = Literal["imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch"]


@dataclass(frozen=True)
class RobustnessOptions:
    """The images that a classifier is tested on."""

    published: Published | None = None
    """Published set whose folder is DATA. By default the test images of DATA are corrupted here."""
    kinds: tuple[str, ...] = ()
    """Names of the corruptions, such as gaussian_noise fog. By default all fifteen; frost only where its
    photographs are installed."""
    images: Annotated[int | None, COUNT] = None
    """Number of test images, drawn at random by the seed. By default all."""
    probe_data: str | None = None
    """Labelled images that a linear probe is fitted on, for an encoder that is no classifier. By default the
    training part of DATA."""
    pool: Literal["cls", "mean"] = "mean"
    """Vector of an image for that probe: the mean of the patch tokens (mean) or the class token (cls)."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        for kind in self.kinds:
            check_corruption(kind, SEVERITIES[0])
        if self.kinds and self.published not in (None, "imagenet-c"):
            raise LaminaError(
                f"kinds have no effect on {self.published}, which is not corrupted: leave them out"
            )
