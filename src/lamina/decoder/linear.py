"""SimMIM's decoder: one matrix."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lamina.core.patches import split_indices, take


class LinearDecoder(nn.Module):
    """One linear map at the hidden tokens (SimMIM: its 1x1 convolution and PixelShuffle are this map).

    It takes one latent over all patches, from an encoder that replaces hidden patches by mask tokens.
    """

    takes: Literal["visible", "all"] = "all"
    n_latents = 1

    def __init__(self, width: int, out: int, n_prefix: int, n_visible: int) -> None:
        super().__init__()
        self.n_prefix, self.n_visible = n_prefix, n_visible
        self.head = nn.Linear(width, out)

    def forward(
        self,
        latent: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B N"],
        keys: Int64[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B m K"], Int64[Tensor, "B m"]]:
        """Predicted values at the hidden patches, and their indices."""
        _, hidden = split_indices(mask, self.n_visible)
        return self.head(take(latent[:, self.n_prefix :], hidden)), hidden
