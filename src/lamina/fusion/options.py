"""Which fusion, and which blocks it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, check_ranges

Projection = Literal["none", "linear", "mlp"]
Pooling = Literal["average", "attention"]
Layers = Sequence[int] | Literal["default", "odd", "all"]
_MFF = read_if("kind", "mff")


@dataclass(frozen=True)
class FusionOptions:
    """Which layers the decoder reads."""

    kind: Literal["none", "mff", "mix"] = "mff"
    """none: the last layer alone. mff: Multi-level Feature Fusion. mix: for each decoder block its own linear
    mix of the embedded input and all blocks (CrossMAE); the fields below are those of mff."""
    layers: Annotated[tuple[int, ...] | Literal["default", "odd", "all"], NOT_NEGATIVE, _MFF] = "default"
    """Blocks to fuse, counted from 0, the last one among them. default: 0 2 4 6 8 11 of 12, scaled to other
    depths; odd: 1 3 5 7 9 11 of 12; all: every block."""
    projection: Annotated[Projection, _MFF] = "linear"
    """What each shallow tap passes through: none, linear (official code), mlp (Linear-GELU-Linear,
    the paper)."""
    pooling: Annotated[Pooling, _MFF] = "average"
    """average: softmax-weighted sum. attention: self-attention over the taps of each token."""
    logit_lr_scale: Annotated[float, NOT_NEGATIVE, _MFF, read_if("pooling", "average")] = 1.0
    """Learning rate of the softmax logits, relative to the rest (1 in published recipes). AdamW moves a
    logit by about the sum of learning rates at most: short runs need more."""
    heads: Annotated[int | None, COUNT, _MFF, read_if("pooling", "attention")] = None
    """Heads of attention pooling; unset means one per 64 channels."""
    logit_weight_decay: Annotated[bool, _MFF, read_if("pooling", "average")] = True
    """Whether weight decay applies to the logits (it does in the official code)."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


def resolve_layers(layers: Layers, depth: int) -> tuple[int, ...]:
    """The blocks that `layers` names in a network of `depth` blocks; raises where it cannot be meant."""
    if isinstance(layers, str):
        if layers == "all":
            return tuple(range(depth))
        first = {"default": (0, 2, 4, 6, 8), "odd": (1, 3, 5, 7, 9)}[layers]
        taps = (*(round(i * depth / 12) for i in first), depth - 1)
    else:
        taps = tuple(layers)
    if not taps:
        raise LaminaError("fusion.layers is empty; list blocks, the last one among them")
    if len(set(taps)) < len(taps):
        raise LaminaError(
            f"fusion.layers {layers} names a block of {depth} twice: {taps}; list the blocks, or use 'all'"
        )
    if list(taps) != sorted(taps) or taps[-1] != depth - 1 or taps[0] < 0:
        raise LaminaError(
            f"fusion.layers {taps} must ascend within 0..{depth - 1} and end with the last block, {depth - 1}"
        )
    return taps
