"""What a recipe says of CMAE's second branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    RangeChecked,
)


@dataclass(frozen=True)
class CMAEOptions(RangeChecked):
    """The second branch of CMAE, with a contrastive loss."""

    decoder_depth: Annotated[int, COUNT] = 2
    """Number of blocks of the feature decoder, which is as wide as the pixel decoder."""
    hidden: Annotated[int, COUNT] = 1536
    """Number of channels between the two layers of the projector, and of the predictor."""
    out: Annotated[int, COUNT] = 256
    """Number of channels of the vectors that the contrastive loss compares."""
    momentum: Annotated[float, SHARE] = 0.996
    """Share of the target encoder's weights that stays in each step; the rest comes from the trained
    encoder."""
    temperature: Annotated[float, POSITIVE] = 0.07
    """Temperature of the InfoNCE loss; a lower value weights similar images more."""
    weight: Annotated[float, NOT_NEGATIVE] = 1.0
    """Weight of the contrastive term in the loss; the term is also multiplied by twice the temperature."""
