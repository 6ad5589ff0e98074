"""What a recipe says of the masking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskingOptions:
    """Which patches are hidden."""

    kind: Literal["random", "blocks", "blockwise", "inverse", "scored"] = "random"
    """random: single patches (MAE). blocks: square units of several patches (SimMIM). blockwise: rectangles
    of any size (BEiT, MaskFeat). inverse: all but one rectangle (CAPI). scored: what the target's teacher
    attends to stays visible, by lot (MILAN)."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden."""
    unit_px: int = 32
    """Side of a unit in pixels, for blocks."""
    min_block: int = 16
    """Smallest rectangle that is drawn, in patches, for blockwise."""
    roll: bool = True
    """The visible rectangle may leave one side and come in on the other, for inverse."""
