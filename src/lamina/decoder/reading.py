"""A transformer block whose queries read tokens that the block leaves as they are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.mlp import Mlp
from torch import Tensor, nn


class ReadingBlock(nn.Module):
    """x + proj(attention(q(h), kv(memory))) with h = norm(x), then an MLP, pre-norm and residual too.

    The memory is read as it comes: no norm of the block touches it.

    Args:
        width: D', channels of the queries.
        heads: of the attention.
        memory_width: D, channels of what is read.
        reads_itself: whether the queries read each other too, after the memory (D = D' then).
    """

    def __init__(self, width: int, heads: int, memory_width: int, reads_itself: bool = False) -> None:
        super().__init__()
        self.heads, self.reads_itself = heads, reads_itself
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(memory_width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Float[Tensor, "B m W"], memory: Float[Tensor, "B T D"]) -> Float[Tensor, "B m W"]:
        """The queries after one reading; B, m, W = D' as they came."""
        h = self.norm1(x)
        if self.reads_itself:
            memory = torch.cat([memory, h], dim=1)
        q = self.q(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, m, d)
        k, v = self.kv(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]
