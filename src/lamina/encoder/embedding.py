"""Embedding of the visible patches alone: no work for the hidden ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.layers.patch_embed import PatchEmbed
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from lamina.core.patches import take


def embed_patches(embed: PatchEmbed, pixels: Float[Tensor, "B n C ph pw"]) -> Float[Tensor, "B n D"]:
    """The patch embedding's convolution at some patches: a matrix product."""
    return embed.norm(F.linear(pixels.flatten(2), embed.proj.weight.flatten(1), embed.proj.bias))  # type: ignore[no-any-return]


def add_visible_positions(
    vit: VisionTransformer | Eva,
    x: Float[Tensor, "B n D"],
    grid: tuple[int, int],
    visible: Int64[Tensor, "B n"],
) -> tuple[Float[Tensor, "B T D"], Tensor | None]:
    """Prefix tokens before the embedded patches, positions added, and rotary positions where there are any.

    Prefix tokens and positions are timm's `_pos_embed` of zeros.
    """
    b, p = len(x), vit.num_prefix_tokens
    # Two rows, of which one is used: with a single one, the class token's gradient would be a slice of that
    # of all tokens, with strides that the buckets of DistributedDataParallel do not have.
    shape = (2, *grid, x.shape[-1]) if vit.dynamic_img_size else (2, grid[0] * grid[1], x.shape[-1])
    zeros = torch.zeros(shape, device=x.device, dtype=vit.patch_embed.proj.weight.dtype)
    tokens, rope = pair(vit._pos_embed(zeros))  # (2, P + N, D)
    places = tokens[:1, p:]
    if vit.pos_embed is None or not vit.pos_embed.requires_grad:
        places = places.detach()  # they would ask for the gradient of all patches and give it to nobody
    # Under autocast the projection is in half precision and the positions are not: as in timm, the sum
    # and with it the residual stream stay in single precision.
    x = x + take(places.expand(b, -1, -1), visible)
    x = torch.cat([tokens[:1, :p].expand(b, -1, -1), x], dim=1)
    return x, None if rope is None else _take_rope(rope, visible)


def pair(result: Tensor | tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """`_pos_embed` of Eva also returns its rotary embedding."""
    return result if isinstance(result, tuple) else (result, None)


def _take_rope(rope: Tensor, visible: Int64[Tensor, "B n"]) -> Tensor:
    """Rotary embeddings of the visible patches: (B, 1, n, d), or per block (L, B, heads, n, d)."""
    if rope.ndim == 2:
        return rope[visible].unsqueeze(1)
    return rope[:, :, visible].transpose(
        1, 2
    )  # (L, heads, N, d) -> (L, heads, B, n, d) -> (L, B, heads, n, d)


def add_class_token(
    vit: Beit, x: Float[Tensor, "B N D"]
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "heads T T"] | None]:
    """The class token before the embedded patches (mask tokens among them), absolute positions where there
    are any, and the bias that all blocks share where they do."""
    x = torch.cat((vit.cls_token.expand(len(x), -1, -1), x), dim=1)
    if vit.pos_embed is not None:
        x = x + vit.pos_embed
    return x, None if vit.rel_pos_bias is None else vit.rel_pos_bias()
