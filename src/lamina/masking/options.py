"""What a recipe says of the masking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.ranges import COUNT, SHARE_BETWEEN, check_ranges


@dataclass(frozen=True)
class MaskingOptions:
    """Which patches are hidden."""

    kind: Literal["random", "blocks", "blockwise", "inverse", "scored"] = "random"
    """random: single patches (MAE). blocks: square units of several patches (SimMIM). blockwise: rectangles
    of any size (BEiT, MaskFeat). inverse: all but one rectangle (CAPI). scored: what the target's teacher
    attends to stays visible, by lot (MILAN)."""
    mask_ratio: Annotated[float, SHARE_BETWEEN] = 0.75
    """Share of the patches that is hidden."""
    unit_px: Annotated[int, COUNT, read_if("kind", "blocks")] = 32
    """Side of a unit in pixels, for blocks."""
    min_block: Annotated[int, COUNT, read_if("kind", "blockwise")] = 16
    """Smallest rectangle that is drawn, in patches, for blockwise."""
    roll: Annotated[bool, read_if("kind", "inverse")] = True
    """The visible rectangle may leave one side and come in on the other, for inverse."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
