"""What a recipe says of CMAE's second branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    check_ranges,
)


@dataclass(frozen=True)
class CMAEOptions:
    """CMAE's second branch."""

    decoder_depth: Annotated[int, COUNT] = 2
    """Blocks of the feature decoder, as wide as the pixel decoder."""
    hidden: Annotated[int, COUNT] = 1536
    """Channels between the two layers of projector and predictor."""
    out: Annotated[int, COUNT] = 256
    """Channels of what is compared."""
    momentum: Annotated[float, SHARE] = 0.996
    """Share of the target that stays at each step."""
    temperature: Annotated[float, POSITIVE] = 0.07
    """Of the InfoNCE loss."""
    weight: Annotated[float, NOT_NEGATIVE] = 1.0
    """Of the contrastive term; it is also multiplied by twice the temperature."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
