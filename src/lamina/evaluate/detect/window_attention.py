"""A plain ViT on large images: attention within windows in most blocks, everywhere in a few (ViTDet)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Shaped
from timm.models.beit import Beit
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.core.ranges import check_blocks
from lamina.encoder.encoder import Encoder
from lamina.evaluate.detect.head_options import AttentionOptions

_IDLE = ("cls_token", "reg_token", "dist_token")
"""Parameters that nothing reads once prefix tokens are dropped."""


def limit_attention(encoder: Encoder, options: AttentionOptions) -> None:
    """Make an encoder one of patches alone, with attention within windows in all but the global blocks: Li et
    al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022, arXiv 2203.16527.

    Attentions are wrapped in place, and what is left without use (prefix tokens, the final norm) is frozen;
    `patch_map` is its forward from then on. Grids that windows do not divide are continued by zeros after
    each block's norm, which are attended to, as in ViTDet. Rotary positions stay those of the whole grid.
    Where a window covers the grid attention is the plain one.

    Raises:
        LaminaError: for networks whose attention is tied to prefix tokens or has no place of its own, and for
            blocks that there are not.
    """
    vit, (rows, columns) = encoder.vit, encoder.grid
    if isinstance(vit, Beit):
        raise LaminaError(
            "a Beit's relative positions are tied to its class token, which detection drops; take a plain "
            "ViT or an Eva"
        )
    side, blocks = options.window, global_blocks(encoder.depth, options.global_blocks)
    for i, block in enumerate(vit.blocks):
        attention = getattr(block, "attn", None)
        if attention is None:
            raise LaminaError(f"{type(block).__name__} has no attention by itself; take a plain ViT")
        if getattr(attention, "num_prefix_tokens", 0):
            attention.num_prefix_tokens = 0  # so many tokens would be left without rotary positions
        if side is not None and i not in blocks and (side < rows or side < columns):
            block.attn = WindowAttention(attention, (rows, columns), side)
    for name, parameter in vit.named_parameters():
        if name in _IDLE or name.startswith("norm."):
            parameter.requires_grad_(False)


def patch_map(encoder: Encoder, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
    """The last block's patch tokens as a map, without the final norm, as in ViTDet; prefix tokens are dropped
    once positions are added. `limit_attention` has made the encoder ready for it."""
    grid = encoder.grid_of(images)
    tokens, rope = encoder.embed(images)
    (last,) = encoder.run(tokens[:, encoder.n_prefix :], rope, (encoder.depth - 1,))
    return last.transpose(1, 2).reshape(len(last), encoder.width, *grid)


class WindowAttention(nn.Module):
    """An attention of timm's, applied to each window of `side` x `side` patches by itself.

    Args:
        attention: tokens, and perhaps rotary positions, to tokens.
        grid: rows and columns of patches.
        side: of a window; one that is longer than the grid ends with it.
    """

    def __init__(self, attention: nn.Module, grid: tuple[int, int], side: int) -> None:
        super().__init__()
        self.attention, self.grid = attention, grid
        self.window = min(side, grid[0]), min(side, grid[1])

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        rope: Float[Tensor, "*heads N d"] | None = None,
        attn_mask: None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "B N D"]:
        """As timm's blocks call their attention; masks are what they never give here."""
        b, n, d = x.shape
        windows = to_windows(x.reshape(b, *self.grid, d), self.window)
        own = () if rope is None else (self._rope(rope).repeat(b, 1, 1, 1),)
        return from_windows(self.attention(windows, *own), self.grid, self.window).reshape(b, n, d)

    def _rope(self, rope: Float[Tensor, "*heads N d"]) -> Float[Tensor, "windows heads n d"]:
        """The rotary positions of each window's patches, for each head where they differ, else for one."""
        heads = rope.reshape(-1, *self.grid, rope.shape[-1])
        windows = to_windows(heads, self.window)
        return windows.reshape(len(heads), -1, *windows.shape[1:]).transpose(0, 1)


def global_blocks(depth: int, requested: tuple[int, ...] | None) -> tuple[int, ...]:
    """The blocks that were asked for, or the last of each quarter of the network.

    Raises:
        LaminaError: where the network has no such block.
    """
    if requested is None:
        return tuple(sorted({max(0, round(k * depth / 4) - 1) for k in (1, 2, 3, 4)}))
    check_blocks("attention.global_blocks", requested, depth)
    return requested


def to_windows(x: Float[Tensor, "B h w D"], window: tuple[int, int]) -> Float[Tensor, "windows n D"]:
    """Rows of a window's tokens, image by image, from the upper left on; zeros beyond the grid."""
    down, right = (-side % each for side, each in zip(x.shape[1:3], window, strict=True))
    if down or right:
        x = F.pad(x, (0, 0, 0, right, 0, down))
    b, height, width, d = x.shape
    cut = x.reshape(b, height // window[0], window[0], width // window[1], window[1], d)
    return cut.transpose(2, 3).reshape(-1, window[0] * window[1], d)


def from_windows(
    x: Float[Tensor, "windows n D"], grid: tuple[int, int], window: tuple[int, int]
) -> Float[Tensor, "B h w D"]:
    """The inverse of `to_windows`, without what lies beyond the grid."""
    rows, columns = (-(-side // each) for side, each in zip(grid, window, strict=True))
    cut = x.reshape(-1, rows, columns, *window, x.shape[-1]).transpose(2, 3)
    whole = cut.reshape(len(cut), rows * window[0], columns * window[1], x.shape[-1])
    return whole[:, : grid[0], : grid[1]]
