"""How training windows are cut for segmentation and detection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, POSITIVE, SHARE, SHARE_ABOVE_0, check_ranges


@dataclass(frozen=True)
class WindowOptions:
    """How training windows are cut for segmentation and detection."""

    size: Annotated[tuple[int, int], COUNT] = (512, 512)
    """Height and width of a window in px."""
    scale: Annotated[tuple[float, float], POSITIVE] = (0.5, 2.0)
    """Smallest and largest size of the image over `base`, drawn evenly."""
    base: Annotated[int, COUNT] = 512
    """Side in px of an image at scale 1."""
    side: Literal["short", "long"] = "short"
    """Which side `base` is: the short one (mmsegmentation), or the long one, so that the whole image fits
    (large-scale jitter)."""
    max_class_share: Annotated[float, SHARE_ABOVE_0] = 1.0
    """Largest share of a window that one class may cover (mmsegmentation: 0.75); other places are tried."""
    flip: Annotated[float, SHARE] = 0.5
    """Probability of a horizontal flip."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        check_scale(self.scale)


def check_scale(scale: tuple[float, float]) -> None:
    """Raise where the smallest size is above the largest."""
    if scale[0] > scale[1]:
        raise LaminaError(f"scale is {scale}; give the smallest size first, then the largest")
