"""The options of the fusion: which one, and which blocks it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, RangeChecked

Projection = Literal["none", "linear", "mlp"]
Pooling = Literal["average", "attention"]
Layers = Sequence[int] | Literal["default", "odd", "all"]
_MFF = read_if("kind", "mff")


@dataclass(frozen=True)
class FusionOptions(RangeChecked):
    """Which layers the decoder reads."""

    kind: Literal["none", "mff", "mix"] = "mff"
    """What the decoder reads. none: the output of the last block. mff: a learned combination of several
    blocks (Multi-level Feature Fusion). mix: each decoder block gets its own linear mix of the embedded input
    and all blocks (CrossMAE). The other fusion options belong to mff."""
    layers: Annotated[tuple[int, ...] | Literal["default", "odd", "all"], NOT_NEGATIVE, _MFF] = "default"
    """Blocks that are fused, counted from 0; the last block has to be among them. default: 0 2 4 6 8 11 of 12
    blocks, scaled to other depths. odd: 1 3 5 7 9 11 of 12. all: every block."""
    projection: Annotated[Projection, _MFF] = "linear"
    """Layer that each fused block before the last passes through. none: no layer. linear: one matrix (the
    official code). mlp: Linear-GELU-Linear (the paper)."""
    pooling: Annotated[Pooling, _MFF] = "average"
    """How the fused blocks are combined. average: a sum weighted by the softmax of one learned logit for each
    block. attention: self-attention over the blocks at each token."""
    logit_lr_scale: Annotated[float, NOT_NEGATIVE, _MFF, read_if("pooling", "average")] = 1.0
    """Learning rate of the softmax logits, as a multiple of that of all other weights (1 in published
    recipes). AdamW moves a logit by about the sum of all learning rates at most, so short runs need a larger
    value."""
    heads: Annotated[int | None, COUNT, _MFF, read_if("pooling", "attention")] = None
    """Number of attention heads, for fusion.pooling attention. Unset: one for each 64 channels."""
    logit_weight_decay: Annotated[bool, _MFF, read_if("pooling", "average")] = True
    """Apply weight decay to the softmax logits, as the official code does."""


def resolve_layers(layers: Layers, depth: int) -> tuple[int, ...]:
    """The block numbers that `layers` means in a network of `depth` blocks; raises where it is invalid."""
    if isinstance(layers, str):
        if layers == "all":
            return tuple(range(depth))
        first = {"default": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}[layers]
        taps = (*(round(i * depth / 12) for i in first), depth - 1)
    else:
        taps = tuple(layers)
    if not taps:
        raise LaminaError("fusion.layers is empty; list block numbers, with the last block among them")
    if len(set(taps)) < len(taps):
        raise LaminaError(
            f"fusion.layers {layers} has a block twice in a network of {depth} blocks: {taps}; list the "
            "blocks, or use 'all'"
        )
    if list(taps) != sorted(taps) or taps[-1] != depth - 1 or taps[0] < 0:
        raise LaminaError(
            f"fusion.layers is {taps}; give block numbers in ascending order from 0 to {depth - 1}, the "
            f"last of them {depth - 1}"
        )
    return taps
