"""A mix of all layers for each decoder block: Fu et al., "Rethinking Patch Dependence for Masked
Autoencoders" (CrossMAE), TMLR 2025, arXiv 2401.14391.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.core.errors import LaminaError


class LayerMix(nn.Module):
    """CrossMAE's inter-block attention: y_j = norm_j(sum_i w_ji x_i), for each decoder block j.

    x_i are the embedded input and the un-normed outputs of all encoder blocks, prefix tokens included. The
    weights are not constrained: a tap may count negatively, and they need not add up to one. They start as
    normal numbers of standard deviation 1 / sqrt(taps).

    As published, each mix has a LayerNorm of its own and the encoder's final norm is not used: it gets no
    gradient, and `uses_norm` is False. It is frozen with its initial weights, and an exported encoder ends
    with this plain normalisation.

    Args:
        width: D of the encoder.
        depth: number of its blocks.
        n_latents: how many mixes, one for each decoder block.

    Raises:
        LaminaError: for no mix at all.
    """

    uses_norm = False

    def __init__(self, width: int, depth: int, n_latents: int = 1) -> None:
        super().__init__()
        if n_latents < 1:
            raise LaminaError(f"n_latents is {n_latents}; give 1 or more, one for each decoder block")
        self.width = width
        self.n_latents = n_latents
        self.layers = tuple(range(-1, depth))
        # A matrix, so that weight decay applies to it as in the official code.
        self.weight = nn.Parameter(torch.empty(n_latents, len(self.layers)))
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=1e-6) for _ in range(n_latents)])
        nn.init.normal_(self.weight, std=len(self.layers) ** -0.5)

    def forward(
        self, features: list[Float[Tensor, "B T D"]], norm: nn.Module
    ) -> Float[Tensor, "B T D"] | list[Float[Tensor, "B T D"]]:
        """A list of `n_latents` normed mixes; where it is one, the mix itself, as other fusions give it.

        The encoder's own `norm` is left aside.
        """
        taps = torch.stack(features)  # (M, B, T, D)
        mixes = (self.weight @ taps.flatten(1)).view(-1, *taps.shape[1:])  # (J, B, T, D)
        latents = [own(mix) for own, mix in zip(self.norms, mixes, strict=True)]
        return latents if self.n_latents > 1 else latents[0]
