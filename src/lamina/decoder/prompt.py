"""MILAN's decoder: the encoder's output prompts the mask tokens and is not changed by them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lamina.core.patches import sincos_2d, split_indices, take
from lamina.decoder.options import check_size
from lamina.decoder.reading import ReadingBlock


class PromptDecoder(nn.Module):
    """A transformer that updates the mask tokens alone (MILAN: Hou et al., arXiv 2208.06049, section 3.2).

    The encoder's output is embedded and given positions once; every block's keys and values come from these
    tokens, un-normed, and from the normed mask tokens, its queries from the mask tokens. Both kinds then pass
    the final norm and the head, so that the encoder's own representation is held to the target too: all
    patches are predicted. MILAN's prediction at the class token is not made, since targets are of patches.

    Args:
        in_width: D of the encoder.
        out: K, numbers to predict for a patch.
        grid: rows and columns of patches.
        n_prefix: prefix tokens in the latent; they are read, and have no position.
        width, depth, heads: of the decoder.

    Raises:
        LaminaError: for a size that cannot be.
    """

    takes: Literal["visible", "all"] = "visible"
    n_latents = 1
    positions: Tensor

    def __init__(
        self,
        in_width: int,
        out: int,
        grid: tuple[int, int],
        n_prefix: int,
        width: int = 512,
        depth: int = 8,
        heads: int = 16,
    ) -> None:
        super().__init__()
        check_size(width, depth, heads)
        self.n_prefix = n_prefix
        self.embed = nn.Linear(in_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sincos_2d(width, grid)[None], persistent=False)
        blocks = [ReadingBlock(width, heads, width, reads_itself=True) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, out)

    def forward(
        self,
        latent: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B N"],
        keys: Int64[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B N K"], Int64[Tensor, "B N"]]:
        """Values at all patches in order of place, and the indices 0..N-1. T = P + visible patches."""
        p, table = self.n_prefix, self.positions[0]
        visible, hidden = split_indices(mask, latent.shape[1] - p)
        seen = self.embed(latent)  # (B, P + n, D')
        # torch.cat promotes: under autocast what is read stays in single precision, as the mask tokens do.
        seen = torch.cat([seen[:, :p], seen[:, p:] + F.embedding(visible, table)], dim=1)
        x = F.embedding(hidden, self.mask_token[0] + table)  # (B, N - n, D')
        for block in self.blocks:
            x = block(x, seen)
        values = self.head(self.norm(torch.cat([seen[:, p:], x], dim=1)))  # visible, then hidden
        place = torch.cat([visible, hidden], dim=1).argsort(dim=1)
        return take(values, place), torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
