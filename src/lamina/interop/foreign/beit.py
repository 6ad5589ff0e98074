"""BEiT and SimMIM ViT as Microsoft writes them: timm's `Beit`, with relative position biases."""

from __future__ import annotations

from typing import Any

from lamina.core.errors import LaminaError
from lamina.encoder.options import IMAGENET_MEAN, IMAGENET_STD, EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors, divide

_TABLE = "relative_position_bias_table"
_INSIDE = r"(?:encoder\.)?"
_RULES = [
    (_INSIDE + r".*relative_position_index", ""),  # made anew from the grid
    (_INSIDE + r"((?:cls_token|pos_embed|patch_embed|rel_pos_bias|blocks|norm)(?:\..*)?)", r"encoder.\1"),
]


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """Both are the same network; SimMIM's file has it under `encoder.`, and ImageNet's statistics."""
    parts = divide(tensors, _RULES)
    encoder = parts.encoder
    simmim = any("encoder.blocks." in name for name in tensors)
    shared = encoder.get(f"rel_pos_bias.{_TABLE}")
    table = shared if shared is not None else encoder.get(f"blocks.0.attn.{_TABLE}")
    if table is None or table.ndim != 2:
        raise LaminaError("it has no relative position biases, which every BEiT of timm has")
    span = round(max(0, len(table) - 3) ** 0.5)  # offsets along a side; the last three are the class token's
    side = (span + 1) // 2 if span % 2 and span * span + 3 == len(table) else None
    has_scale = "blocks.0.gamma_1" in encoder
    found: dict[str, Any] = parts.sizes(None if side is None else side * side)
    half = (0.5,) * found["in_chans"]
    feed = clues.statistics(IMAGENET_MEAN, IMAGENET_STD) if simmim else clues.statistics(half, half)
    options = EncoderOptions(
        name="beit_base_patch16_224",
        heads=int(table.shape[1]),
        relative_positions="shared" if shared is not None else "per_block",
        layer_scale=0.1 if has_scale else 0.0,
        hide="replace",
        weight_init="simmim",
        **found,
        **feed,
    )
    return parts.foreign("SimMIM ViT (microsoft)" if simmim else "BEiT (microsoft)", options, 1e-6)


FORMAT = Format(
    "BEiT or SimMIM ViT (microsoft)",
    (r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.q_bias", _TABLE),
    convert,
    _INSIDE,
)
