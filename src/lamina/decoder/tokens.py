"""The parts that decoders with mask tokens share."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from lamina.core.patches import sincos_2d
from lamina.decoder.options import check_size


class TokenDecoder(nn.Module):
    """Mask tokens, fixed positions, blocks, norm and head; a subclass has the forward pass.

    Args:
        in_width: D of the encoder.
        out: K, numbers to predict for a patch.
        grid: rows and columns of patches.
        n_prefix: prefix tokens in the latent; they have no position.
        width, depth, heads: of the decoder; D' is the width.

    Raises:
        LaminaError: for a size that cannot be built.
    """

    takes: Literal["visible", "all"] = "visible"
    n_latents = 1
    embeds: ClassVar[bool] = True
    """Whether the encoder's output is embedded in the decoder's width (`seen`)."""
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
        if self.embeds:
            self.embed = nn.Linear(in_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.register_buffer("positions", sincos_2d(width, grid)[None], persistent=False)
        self.blocks = nn.ModuleList([self.block(width, heads, in_width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, out)

    @staticmethod
    def block(width: int, heads: int, in_width: int) -> nn.Module:
        """One of the blocks: a ViT's, where a subclass has no other. `in_width` is that of the encoder."""
        return Block(width, heads, qkv_bias=True)

    def gathered_parts(self) -> list[nn.Module]:
        """The blocks, where the forward calls each as a module."""
        return list(self.blocks)

    def seen(self, latent: Float[Tensor, "B T D"], visible: Int64[Tensor, "B n"]) -> Float[Tensor, "B T W"]:
        """The embedded latent, its patches with the positions of `visible`. T = P + n, W = D'."""
        p, tokens = self.n_prefix, self.embed(latent)
        # torch.cat promotes: under autocast these tokens stay in single precision, as in MAE.
        return torch.cat([tokens[:, :p], tokens[:, p:] + F.embedding(visible, self.positions[0])], dim=1)

    def blank(self) -> Float[Tensor, "N W"]:
        """The mask token with the position of each patch."""
        return self.mask_token[0] + self.positions[0]
