"""How windows are cut for detection: at random in training, around the whole image in the test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from lamina.core.config import Formerly
from lamina.core.ranges import COUNT, POSITIVE, SHARE
from lamina.data.dense.window_options import WindowOptions, check_scale
from lamina.evaluate.dense.recipe import Windows

if TYPE_CHECKING:
    from lamina.data.dense.crops import Window


@dataclass(frozen=True)
class DetectWindows(Windows):
    """Windows of images; what is unset follows from the encoder."""

    base: Annotated[int | None, COUNT] = None
    """Long side in px of a training image at scale 1. By default that of a window."""
    scale: Annotated[tuple[float, float], POSITIVE] = (0.1, 2.0)
    """Smallest and largest size of a training image relative to window.base, drawn uniformly (large-scale
    jitter)."""
    flip: Annotated[float, SHARE] = 0.5
    """Probability of a horizontal flip in training."""
    least_px: Annotated[int, COUNT] = 1
    """Smallest number of px of an object in a training window for it to count."""
    batch_size: Annotated[int, COUNT, Formerly("at_once")] = 8
    """Number of images per forward pass in the test. Results do not depend on it; lower it where the device
    runs out of memory."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        super().__post_init__()
        check_scale(self.scale)

    def resolved(self, own: tuple[int, int], patch: tuple[int, int]) -> DetectWindows:
        """See `Windows.resolved`."""
        whole = super().resolved(own, patch)
        return replace(whole, base=max(whole.pixels) if self.base is None else self.base)

    def training(self) -> WindowOptions:
        """Windows as the training loader cuts them."""
        assert self.base is not None
        return WindowOptions(self.pixels, self.scale, self.base, side="long", flip=self.flip)

    def whole(self, height: int, width: int) -> Window:
        """The window of an image of that size which shows all of it, as large as it can be, from the upper
        left on."""
        from lamina.data.dense.crops import Window  # with torch

        factor = min(side / of for side, of in zip(self.pixels, (height, width), strict=True))
        resized = tuple(
            min(side, max(1, round(of * factor)))
            for side, of in zip(self.pixels, (height, width), strict=True)
        )
        return Window((resized[0], resized[1]), 0, 0, self.pixels)
