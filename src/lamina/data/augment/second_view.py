"""A second view of the same crop: shifted by some pixels, its colours changed, perhaps grey or blurred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lamina.core.errors import LaminaError
from lamina.data.augment.jitter import jitter


@dataclass(frozen=True)
class ShiftedViews:
    """Two windows of one crop, near each other; the second one is changed too (CMAE, arXiv 2207.13532,
    section 3.2).

    The first window lies anywhere that leaves room for the shift, the second up to `shift_px` below and to
    the right of it: 224 px windows in a crop of 256 px, 31 px of shift. Colour jitter, grey and blur act on
    the second alone, with torchvision's functions.

    Args:
        size: height and width of a window in px.
        shift_px: the largest shift; None: one pixel less than there is room.
        jitter: largest changes of brightness, contrast, saturation and hue.
        jitter_share, grey_share, blur_share: how often each of them is done.
    """

    size: tuple[int, int]
    shift_px: int | None = None
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_share: float = 0.8
    grey_share: float = 0.2
    blur_share: float = 0.5
    n_draws: int = 13

    def __call__(
        self, crop: Shaped[Tensor, "C H W"], draws: Sequence[float]
    ) -> tuple[Shaped[Tensor, "C h w"], Shaped[Tensor, "C h w"]]:
        """Both windows of a crop, from `n_draws` numbers in [0, 1)."""
        (height, width), (rows, columns) = self.size, crop.shape[1:]
        places = []
        for room, first, second in ((rows - height, 0, 2), (columns - width, 1, 3)):
            if room < 0:
                raise LaminaError(
                    f"two views of {height} x {width} px need a larger crop than {rows} x {columns} px; set "
                    "data.crop_px"
                )
            shift = max(0, room - 1) if self.shift_px is None else min(self.shift_px, room)
            start = int(draws[first] * (room - shift + 1))
            places.append((start, start + int(draws[second] * (shift + 1))))
        (top, top2), (left, left2) = places
        one = crop[:, top : top + height, left : left + width]
        other = crop[:, top2 : top2 + height, left2 : left2 + width]
        return one, self._changed(other, draws[4:])

    def _changed(self, image: Tensor, draws: Sequence[float]) -> Tensor:
        if self._colours() and image.shape[0] not in (1, 3):
            raise LaminaError(
                f"colour changes of a second view need 1 or 3 channels, not {image.shape[0]}; set "
                "data.view_jitter 0 0 0 0 and data.view_grey_share 0"
            )
        if draws[0] < self.jitter_share:
            image = jitter(image, self.jitter, draws[1:6])
        if draws[6] < self.grey_share and image.shape[0] == 3:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        if draws[7] < self.blur_share:
            sigma = 0.1 + draws[8] * 1.9
            # As wide as three deviations, and no wider than an image that is mirrored at its edges allows.
            reach = min(math.ceil(3 * sigma), min(self.size) - 1)
            image = F.gaussian_blur(image, [2 * reach + 1, 2 * reach + 1], [sigma, sigma])
        return image

    def _colours(self) -> bool:
        return (self.jitter_share > 0 and any(self.jitter)) or self.grey_share > 0
