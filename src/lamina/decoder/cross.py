"""Decoders whose mask tokens read the encoder's output by cross-attention: those of CrossMAE and MILAN."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.patches import split_indices, take
from lamina.core.rng import Purpose, bits, fresh_keys
from lamina.decoder.tokens import TokenDecoder


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


class CrossDecoder(TokenDecoder):
    """Cross-attention alone (CrossMAE: Fu et al., arXiv 2401.14391, section 3).

    A query is the mask token plus the fixed position of its patch. Queries read the latents, of the encoder's
    width and with no further positions (the encoder's are in them), and never each other: a prediction does
    not depend on which others are made, so only a share of the hidden patches is predicted.

    Args:
        in_width: D of the encoder.
        out: K, numbers to predict for a patch.
        grid: rows and columns of patches.
        n_prefix: prefix tokens in the latent; they are read like the others.
        width, depth, heads: of the decoder; CrossMAE has 12 blocks.
        share: of all patches, predicted ones, rounded up; at most the hidden ones. They are drawn at random
            for each sample from its key, or from torch's generator where there are no keys.
        latents: "one" for all blocks, or "per_block" (from `LayerMix`).

    Raises:
        LaminaError: for a size or a share that cannot be; in `forward`, for more predicted than hidden.
    """

    embeds = False

    def __init__(
        self,
        in_width: int,
        out: int,
        grid: tuple[int, int],
        n_prefix: int,
        width: int = 512,
        depth: int = 12,
        heads: int = 16,
        share: float = 0.25,
        latents: Literal["one", "per_block"] = "one",
    ) -> None:
        super().__init__(in_width, out, grid, n_prefix, width, depth, heads)
        if not 0 < share <= 1:
            raise LaminaError(f"predict_share is {share}; choose a share above 0 and up to 1, such as 0.25")
        self.share = share
        self.n_latents = depth if latents == "per_block" else 1

    @staticmethod
    def block(width: int, heads: int, in_width: int) -> nn.Module:
        """One of the blocks, which reads the encoder's output as it comes."""
        return ReadingBlock(width, heads, in_width)

    def n_predicted(self, n: int, n_hidden: int) -> int:
        """How many of `n` patches are predicted; raises where fewer are hidden."""
        m = math.ceil(n * self.share - 1e-6)
        if m > n_hidden:
            raise LaminaError(
                f"predict_share {self.share} of {n} patches is {m}, but {n_hidden} are hidden; lower "
                "predict_share or raise mask_ratio"
            )
        return m

    def forward(
        self,
        latents: Float[Tensor, "B T D"] | list[Float[Tensor, "B T D"]],
        mask: Bool[Tensor, "B N"],
        keys: Int64[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B m K"], Int64[Tensor, "B m"]]:
        """Predicted values at the drawn patches, and their indices, ascending. T = P + visible patches."""
        memories = latents if isinstance(latents, list) else [latents] * len(self.blocks)
        where = self._draw(mask, memories[0].shape[1] - self.n_prefix, keys)
        x = F.embedding(where, self.blank())  # (B, m, D')
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, memory)
        return self.head(self.norm(x)), where

    def _draw(self, mask: Tensor, n_visible: int, keys: Tensor | None) -> Tensor:
        _, hidden = split_indices(mask, n_visible)
        n_hidden = hidden.shape[1]
        m = self.n_predicted(mask.shape[1], n_hidden)
        if m == n_hidden or not self.training:
            return hidden
        keys = keys if keys is not None else fresh_keys(len(mask), mask.device)
        drawn = bits(keys, n_hidden, Purpose.PREDICT).argsort(dim=1, stable=True)[:, :m]
        return hidden.gather(1, drawn.sort(dim=1).values)


class PromptDecoder(TokenDecoder):
    """A transformer that updates the mask tokens alone (MILAN: Hou et al., arXiv 2208.06049, section 3.2).

    The encoder's output is embedded and given positions once; every block's keys and values come from these
    tokens, un-normed, and from the normed mask tokens, its queries from the mask tokens. Both kinds then pass
    the final norm and the head, so that the encoder's own representation is held to the target too: all
    patches are predicted. MILAN's prediction at the class token is not made, since targets are of patches.
    """

    @staticmethod
    def block(width: int, heads: int, in_width: int) -> nn.Module:
        """One of the blocks, which reads the embedded output of the encoder."""
        return ReadingBlock(width, heads, width, reads_itself=True)

    def forward(
        self,
        latent: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B N"],
        keys: Int64[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B N K"], Int64[Tensor, "B N"]]:
        """Values at all patches in order of place, and the indices 0..N-1. T = P + visible patches."""
        p = self.n_prefix
        visible, hidden = split_indices(mask, latent.shape[1] - p)
        seen = self.seen(latent, visible)  # (B, P + n, D'), read un-normed by every block
        x = F.embedding(hidden, self.blank())  # (B, N - n, D')
        for block in self.blocks:
            x = block(x, seen)
        values = self.head(self.norm(torch.cat([seen[:, p:], x], dim=1)))  # visible, then hidden
        place = torch.cat([visible, hidden], dim=1).argsort(dim=1)
        return take(values, place), torch.arange(mask.shape[1], device=mask.device).expand(len(mask), -1)
