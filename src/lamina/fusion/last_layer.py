"""No fusion: the last block alone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class LastLayer(nn.Module):
    """The last block alone: a method without fusion."""

    n_latents = 1
    uses_norm = True

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.width = None  # any
        self.layers = (depth - 1,)

    def forward(self, features: list[Float[Tensor, "B T D"]], norm: nn.Module) -> Float[Tensor, "B T D"]:
        """The normed output of the last block."""
        return norm(features[0])  # type: ignore[no-any-return]
