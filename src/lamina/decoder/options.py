"""Which decoder, and of what size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, SHARE_ABOVE_0, RangeChecked

_BLOCKS = read_if("kind", "mae", "cross", "prompt")


@dataclass(frozen=True)
class DecoderOptions(RangeChecked):
    """What turns the encoder's output into a prediction."""

    kind: Literal["mae", "linear", "cross", "prompt"] = "mae"
    """Architecture of the decoder. mae: a small transformer over the visible tokens and mask tokens (MAE).
    linear: one matrix, for --encoder.hide replace (SimMIM). cross: mask tokens that attend to the encoder's
    output and not to each other (CrossMAE). prompt: mask tokens that attend to the encoder's output and to
    each other, while that output stays unchanged (MILAN)."""
    width: Annotated[int, COUNT, _BLOCKS] = 512
    """Number of channels in the decoder's blocks. The linear decoder has none."""
    depth: Annotated[int, COUNT, _BLOCKS] = 8
    """Number of blocks of the decoder. The linear decoder has none."""
    heads: Annotated[int, COUNT, _BLOCKS] = 16
    """Number of attention heads in each block of the decoder; it has to divide the width."""
    predict_share: Annotated[float, SHARE_ABOVE_0, read_if("kind", "cross")] = 0.25
    """Share of all patches that the cross decoder predicts in a step, drawn among the hidden ones. A smaller
    share makes a step cheaper."""


def check_size(width: int, depth: int, heads: int) -> None:
    """Raise where no decoder of that size can be built."""
    if depth < 1 or width % heads:
        raise LaminaError(
            f"a decoder of {depth} blocks, {width} channels and {heads} heads cannot be built; use one "
            "block or more, and heads that divide the width"
        )
