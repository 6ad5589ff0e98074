"""From tokens to one vector, and from that to what a classifier's matrix reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class AttentivePool(nn.Module):
    """One learned query per head attends to all tokens: the attentive probe of CAPI (arXiv 2502.08769) and
    V-JEPA.

    Keys and values are linear in the tokens, without bias; what the heads bring back is joined, D in, D out.

    Args:
        width: D.
        heads: so many queries, each of D / heads channels.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.empty(1, heads, 1, width // heads))
        self.keys_values = nn.Linear(width, 2 * width, bias=False)
        nn.init.trunc_normal_(self.query, std=0.02)
        nn.init.trunc_normal_(self.keys_values.weight, std=0.02)

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        """The attended mean of the values."""
        b, t, d = tokens.shape
        pairs = self.keys_values(tokens).view(b, t, 2, self.heads, d // self.heads)
        keys, values = pairs.permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        query = self.query.to(keys.dtype).expand(b, -1, -1, -1)
        return F.scaled_dot_product_attention(query, keys, values).flatten(1)


class MeanPool(nn.Module):
    """The mean of the tokens."""

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        """One vector for each image of the batch."""
        return tokens.mean(dim=1)


def fold_batch_norm(neck: nn.BatchNorm1d, head: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one matrix that computes what a batch norm without affine and then `head` do in
    evaluation mode."""
    assert neck.running_mean is not None
    assert neck.running_var is not None
    scale = (neck.running_var + neck.eps).rsqrt()
    weight = head.weight * scale
    return weight, head.bias - weight @ neck.running_mean
