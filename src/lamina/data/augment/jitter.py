"""Colour jitter from numbers that were drawn beforehand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from jaxtyping import Shaped
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from lamina.core.errors import LaminaError
from lamina.data.augment.hue import shift_hue

_ORDERS = tuple(itertools.permutations(range(4)))
Strengths = tuple[float, float, float, float]


def jitter(
    image: Shaped[Tensor, "C H W"], most: Strengths, draws: Sequence[float]
) -> Shaped[Tensor, "C H W"]:
    """Brightness, contrast and saturation by factors of 1 - most to 1 + most, hue by a shift (of a turn) of
    at most `most`, in a random order, from five numbers in [0, 1) (torchvision's `ColorJitter`)."""
    if any(most) and image.shape[0] not in (1, 3):
        raise LaminaError(f"colour jitter needs 1 or 3 channels, not {image.shape[0]}; leave data.jitter out")
    for change in _ORDERS[int(draws[4] * len(_ORDERS))]:
        amount = most[change] * (2 * draws[change] - 1)
        if most[change] == 0:
            continue
        if change == 0:
            image = F.adjust_brightness(image, max(0.0, 1 + amount))
        elif change == 1:
            image = F.adjust_contrast(image, max(0.0, 1 + amount))
        elif change == 2:
            image = F.adjust_saturation(image, max(0.0, 1 + amount))
        else:
            image = shift_hue(image, amount)
    return image
