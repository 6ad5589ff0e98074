"""Which decoder, and of what size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, SHARE_ABOVE_0, check_ranges

_BLOCKS = read_if("kind", "mae", "cross", "prompt")


@dataclass(frozen=True)
class DecoderOptions:
    """What turns the encoder's output into a prediction."""

    kind: Literal["mae", "linear", "cross", "prompt"] = "mae"
    """mae: a small transformer over visible and mask tokens. linear: one matrix (with mask tokens
    in the encoder). cross: mask tokens that read the encoder's output and not each other (CrossMAE). prompt:
    mask tokens that read it and each other, while it stays as it is (MILAN)."""
    width: Annotated[int, COUNT, _BLOCKS] = 512
    """Channels of a decoder with blocks (all but linear)."""
    depth: Annotated[int, COUNT, _BLOCKS] = 8
    """Its blocks."""
    heads: Annotated[int, COUNT, _BLOCKS] = 16
    """Its attention heads."""
    predict_share: Annotated[float, SHARE_ABOVE_0, read_if("kind", "cross")] = 0.25
    """Share of all patches that the cross decoder predicts, drawn among the hidden ones."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


def check_size(width: int, depth: int, heads: int) -> None:
    """Raise where no decoder of that size can be built."""
    if depth < 1 or width % heads:
        raise LaminaError(
            f"a decoder of {depth} blocks, {width} channels and {heads} heads cannot be built; use one "
            "block or more, and heads that divide the width"
        )
