"""What a recipe says of the masking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.ranges import COUNT, SHARE_BETWEEN, RangeChecked


@dataclass(frozen=True)
class MaskingOptions(RangeChecked):
    """Which patches are hidden."""

    kind: Literal["random", "blocks", "blockwise", "inverse", "scored"] = "random"
    """How patches are hidden. random: single patches, uniformly (MAE). blocks: square units of several
    patches (SimMIM). blockwise: rectangles of random size and position (BEiT, MaskFeat). inverse: everything
    except one rectangle (CAPI). scored: patches stay visible with a probability proportional to the attention
    that the target's teacher pays to them (MILAN)."""
    mask_ratio: Annotated[float, SHARE_BETWEEN] = 0.75
    """Share of the patches that is hidden, between 0 and 1. Higher shares make the task harder and, with
    encoder.hide drop, each step cheaper."""
    unit_px: Annotated[int, COUNT, read_if("kind", "blocks")] = 32
    """Side of a hidden unit in pixels, a multiple of the patch size, for masking.kind blocks."""
    min_block: Annotated[int, COUNT, read_if("kind", "blockwise")] = 16
    """Number of patches in the smallest rectangle that is drawn, for masking.kind blockwise."""
    roll: Annotated[bool, read_if("kind", "inverse")] = True
    """Let the visible rectangle leave the image on one side and continue on the opposite side, so that each
    patch is visible equally often, for masking.kind inverse."""
