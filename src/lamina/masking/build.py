"""The maskings as one type, and the masking that options describe."""

from __future__ import annotations

from lamina.core.errors import LaminaError
from lamina.masking.attention_guided import AttentionGuidedMasking
from lamina.masking.blockwise import BlockwiseMasking
from lamina.masking.inverse_block import InverseMasking
from lamina.masking.options import MaskingOptions
from lamina.masking.random import RandomMasking
from lamina.masking.units import BlockMasking

Masking = RandomMasking | BlockMasking | BlockwiseMasking | InverseMasking | AttentionGuidedMasking


def build_masking(options: MaskingOptions, patch: tuple[int, int]) -> Masking:
    """The masking that the options describe, for square or oblong patches of `patch` px."""
    if options.kind == "random":
        return RandomMasking(options.mask_ratio)
    if options.kind == "blockwise":
        return BlockwiseMasking(options.mask_ratio, options.min_block)
    if options.kind == "inverse":
        return InverseMasking(options.mask_ratio, options.roll)
    if options.kind == "scored":
        return AttentionGuidedMasking(options.mask_ratio)
    if patch[0] != patch[1] or options.unit_px % patch[0]:
        raise LaminaError(
            f"masking.unit_px {options.unit_px} is not a multiple of the {patch[0]} x {patch[1]} px patch"
        )
    return BlockMasking(options.mask_ratio, options.unit_px // patch[0])
