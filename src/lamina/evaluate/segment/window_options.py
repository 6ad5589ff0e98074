"""How windows are cut for segmentation: at random in training, side by side in the test."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from lamina.core.config import Formerly
from lamina.core.ranges import COUNT, POSITIVE, SHARE, SHARE_ABOVE_0
from lamina.data.dense.window_options import WindowOptions, check_scale
from lamina.evaluate.dense.recipe import Windows, check_sides


@dataclass(frozen=True)
class SegmentWindows(Windows):
    """Windows of images; what is unset follows from the encoder."""

    base: Annotated[int | None, COUNT] = None
    """Short side in px of a test image, and of a training image at scale 1. By default that of a window."""
    max_side: Annotated[int, COUNT, Formerly("longest")] = 2048
    """Largest long side of a test image in px; a longer one is scaled down to it, as mmsegmentation does."""
    scale: Annotated[tuple[float, float], POSITIVE] = (0.5, 2.0)
    """Smallest and largest size of a training image relative to window.base, drawn uniformly."""
    max_class_share: Annotated[float, SHARE_ABOVE_0, Formerly("most_of_one_class")] = 0.75
    """Largest share of a training window that one class may cover; other places are tried until it holds. 1:
    any share."""
    flip: Annotated[float, SHARE] = 0.5
    """Probability of a horizontal flip in training."""
    stride: Annotated[tuple[int, ...] | None, COUNT] = None
    """Distance in px from one window to the next in the test. By default two thirds of a window: 341 for
    512."""
    batch_size: Annotated[int, COUNT, Formerly("at_once")] = 8
    """Number of windows per forward pass in the test. Results do not depend on it; lower it where the device
    runs out of memory."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        super().__post_init__()
        check_sides("stride", self.stride)
        check_scale(self.scale)

    def resolved(self, own: tuple[int, int], patch: tuple[int, int]) -> SegmentWindows:
        """See `Windows.resolved`; a stride is no longer than a window."""
        whole = super().resolved(own, patch)
        rows, columns = whole.pixels
        stride = self.stride or tuple(max(1, 2 * side // 3) for side in whole.pixels)
        stride = (min(stride[0], rows), min(stride[-1], columns))
        return replace(whole, base=min(rows, columns) if self.base is None else self.base, stride=stride)

    @property
    def steps(self) -> tuple[int, int]:
        """Px down and right from one window to the next, once resolved."""
        assert self.stride is not None
        return self.stride[0], self.stride[-1]

    def training(self) -> WindowOptions:
        """Windows as the training loader cuts them."""
        assert self.base is not None
        return WindowOptions(
            self.pixels,
            self.scale,
            self.base,
            max_class_share=self.max_class_share,
            flip=self.flip,
        )

    def plain(self) -> WindowOptions:
        """A window of each image at scale 1, not mirrored, anywhere: what kNN remembers."""
        assert self.base is not None
        return WindowOptions(self.pixels, (1.0, 1.0), self.base, flip=0.0)
