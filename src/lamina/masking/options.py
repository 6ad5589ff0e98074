"""What a recipe says of the masking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MaskingOptions:
    """Which patches are hidden."""

    kind: Literal["random", "blocks", "blockwise", "scored"] = "random"
    """random: single patches (MAE). blocks: square units of several patches (SimMIM). blockwise: rectangles
    of any size (BEiT, MaskFeat). scored: what the target's teacher attends to stays visible (MILAN)."""
    mask_ratio: float = 0.75
    """Share of the patches that is hidden."""
    unit_px: int = 32
    """Side of a unit in pixels, for blocks."""
    min_block: int = 16
    """Smallest rectangle that is drawn, in patches, for blockwise."""
