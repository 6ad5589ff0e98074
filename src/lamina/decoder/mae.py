"""MAE's decoder: a small transformer over what was seen and a token for each patch that was not."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from lamina.core.patches import split_indices
from lamina.decoder.tokens import TokenDecoder


class MAEDecoder(TokenDecoder):
    """MAE's transformer decoder (He et al., arXiv 2111.06377, section 3), of any width and depth.

    Tokens are ordered prefix, visible, hidden rather than by place: attention does not see the order, the
    positions travel with the tokens, and no token has to be moved. What cannot differ is not computed
    twice: the first block's norm and queries, keys and values of a hidden patch depend on its place alone,
    so they are made once for the whole batch. What nobody reads is not computed: the last block's queries
    and MLP, and the head, run at the hidden patches only, where the loss looks.
    """

    def gathered_parts(self) -> list[nn.Module]:
        """The decoder as a whole, which reads the weights of its blocks part by part."""
        return [self]

    def forward(
        self,
        latent: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B N"],
        keys: Int64[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B m K"], Int64[Tensor, "B m"]]:
        """Predicted values at the hidden patches, and their indices. T = P + visible patches."""
        visible, hidden = split_indices(mask, latent.shape[1] - self.n_prefix)
        seen = self.seen(latent, visible)  # (B, P + n, D')
        blank = self.blank()  # (N, D'), a hidden patch at each place
        x = torch.cat([seen, F.embedding(hidden, blank)], dim=1)  # (B, P + N, D')
        blocks: list[Any] = list(self.blocks)
        for i, block in enumerate(blocks[:-1]):
            qkv = block.attn.qkv(block.norm1(x)) if i else _first_qkv(block, seen, blank, hidden)
            x = _attended(block, x, *_per_head(qkv, 3, block.attn.num_heads))
        x = _last_tokens(blocks[-1], x, hidden.shape[1])
        return self.head(self.norm(x)), hidden


def _first_qkv(
    block: Any, seen: Float[Tensor, "B S D"], blank: Float[Tensor, "N D"], hidden: Int64[Tensor, "B m"]
) -> Float[Tensor, "B T 3*D"]:
    """Queries, keys and values of the tokens `seen` and then of the rows of `blank` at `hidden`."""
    of_seen, of_blank = (block.attn.qkv(block.norm1(tokens)) for tokens in (seen, blank))
    return torch.cat([of_seen, F.embedding(hidden, of_blank)], dim=1)


def _last_tokens(block: Any, x: Float[Tensor, "B T D"], m: int) -> Float[Tensor, "B m D"]:
    """`block(x)[:, -m:]` without computing the other tokens' queries, projections and MLP."""
    attn, h, d = block.attn, block.norm1(x), x.shape[-1]
    weight, bias = attn.qkv.weight, attn.qkv.bias
    q = _per_head(F.linear(h[:, -m:], weight[:d], bias[:d]), 1, attn.num_heads)
    kv = _per_head(F.linear(h, weight[d:], bias[d:]), 2, attn.num_heads)
    return _attended(block, x[:, -m:], *q, *kv)


def _per_head(x: Float[Tensor, "B T nD"], n: int, heads: int) -> list[Float[Tensor, "B heads T d"]]:
    """The n parts of the channels, by head. As chunks, because their gradients are joined by one copy; of
    parts unbound from a permuted tensor, as timm takes them, each gradient is copied twice."""
    b, t = x.shape[:2]
    return [part.view(b, t, heads, -1).transpose(1, 2) for part in x.chunk(n, dim=-1)]


def _attended(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The rest of a pre-norm block, from queries, keys and values by head on."""
    y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    y = x + block.attn.proj(y)
    result: Tensor = y + block.mlp(block.norm2(y))
    return result
