"""The encoder: a timm network under masks, its blocks one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.patches import split_indices
from lamina.encoder.embedding import add_class_token, add_visible_positions, embed_patches, pair
from lamina.encoder.images import check_layout, check_range
from lamina.encoder.networks import Network, checked
from lamina.encoder.options import default_statistics
from lamina.encoder.residual_decay import Factors, check_foldable, decayed, folded, products, shortcut_factors


def check_hiding(vit: Network, hide: str) -> None:
    """Raise where a network cannot hide patches in that way."""
    if hide == "drop" and isinstance(vit, Beit):
        raise LaminaError(
            "hide 'drop' does not fit a Beit, whose relative position biases need the full grid; use "
            "--encoder.hide replace, or a plain ViT"
        )


class Encoder(nn.Module):
    """Wraps a built timm `VisionTransformer`, `Eva` or `Beit` for masked image modelling.

    `vit` stays an ordinary timm model, but for its classifier, which nothing here trains; `timm_state()` is
    its checkpoint for plain timm.

    Args:
        vit: the network; class token or none, registers, absolute, rotary or relative positions.
        hide: "drop" embeds the visible patches alone (MAE); "replace" puts a learned token in place of
            the hidden ones and runs on all (SimMIM, BEiT). A `Beit` takes masks with "replace" alone.
        mean, std: channel statistics of the images on [0, 1].
        activation_checkpointing: recompute blocks in the backward pass.
        residual_decay: factor of the last shortcut, if shortcuts fade with depth
            (`lamina.encoder.residual_decay`).
        class_tokens: how many prefix tokens are class tokens, if there are any; several are all of them.

    Raises:
        LaminaError: for networks whose positions, final norm or blocks do not allow it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        vit: nn.Module,
        hide: Literal["drop", "replace"] = "drop",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        activation_checkpointing: bool = False,
        residual_decay: float | None = None,
        class_tokens: int = 1,
    ) -> None:
        super().__init__()
        self.vit = vit = checked(vit)
        vit.reset_classifier(0, "" if getattr(vit, "attn_pool", None) is not None else None)
        self.hide = hide
        self.mask_token = nn.Parameter(torch.zeros(1, 1, vit.embed_dim)) if hide == "replace" else None
        self.activation_checkpointing = activation_checkpointing
        self.n_class = _class_tokens(vit, class_tokens)
        self._range_known = False
        self.residual_decay = residual_decay
        self.factors: Factors | None = None
        if residual_decay is not None:
            check_foldable(vit, residual_decay)
            self.factors = shortcut_factors(len(vit.blocks), residual_decay)
            # In every checkpoint, so that its weights are not taken for those of a plain network.
            self.register_buffer("shortcuts", torch.tensor(self.factors))
        channels = vit.patch_embed.proj.in_channels
        mean, std = default_statistics(channels, mean, std)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def norm(self) -> nn.Module:
        """The final norm."""
        return self.vit.norm

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.vit.blocks)

    @property
    def width(self) -> int:
        """D, channels of a token."""
        return int(self.vit.embed_dim)

    @property
    def n_prefix(self) -> int:
        """P, tokens before the patches (class, registers)."""
        return int(self.vit.num_prefix_tokens)

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch in px."""
        h, w = self.vit.patch_embed.patch_size
        return int(h), int(w)

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return int(self.vit.patch_embed.proj.in_channels)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at the size the network was built for."""
        h, w = self.vit.patch_embed.grid_size
        return int(h), int(w)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in px of the images that the network was built for."""
        (rows, columns), (height, width) = self.grid, self.patch
        return rows * height, columns * width

    def grid_of(self, images: Shaped[Tensor, "..."]) -> tuple[int, int]:
        """Rows and columns of patches of images (B, C, H, W); raises where the network cannot take them."""
        check_layout(images, self.in_chans)
        (h, w), (ph, pw) = images.shape[-2:], self.patch
        grid = (h // ph, w // pw)
        if h % ph or w % pw or (grid != self.grid and not getattr(self.vit, "dynamic_img_size", False)):
            rows, columns = self.grid
            raise LaminaError(
                f"images are {h} x {w} px, the encoder takes {rows * ph} x {columns * pw}; set image_size, "
                "or build the network with dynamic_img_size=True"
            )
        return grid

    def normalise(self, images: Shaped[Tensor, "*B C H W"]) -> Float[Tensor, "*B C H W"]:
        """Stored or [0, 1] pixels, minus the mean, divided by the standard deviation. The range of the first
        float images is checked, and a warning is given where it is not [0, 1]."""
        self._range_known = self._range_known or check_range(images)
        return (unit_float(images) - self.mean) / self.std

    def forward(
        self,
        images: Shaped[Tensor, "B C H W"],
        layers: Sequence[int],
        mask: Bool[Tensor, "B N"] | None = None,
        n_visible: int | None = None,
    ) -> list[Float[Tensor, "B T D"]]:
        """The un-normed outputs of the listed blocks, in that order; -1 is the embedded input.

        T is P + n_visible where hidden patches are dropped, else P + N. `n_visible` is needed with a mask
        when dropping: the count of False in each of its rows.
        """
        grid = self.grid_of(images)
        if not all(-1 <= i < self.depth for i in layers):
            raise LaminaError(
                f"layers {tuple(layers)} must be block numbers from -1 (the input) to {self.depth - 1}"
            )
        if mask is not None and self.hide == "drop":
            if n_visible is None:
                raise LaminaError(
                    "dropping hidden patches needs n_visible, the count of visible ones in each row"
                )
            x, extra = self._embed_visible(images, grid, split_indices(mask, n_visible)[0])
        else:
            x, extra = self.embed(images, mask)
        return self.run(x, extra, layers)

    def gathered_parts(self) -> list[nn.Module]:
        """The blocks; none where shortcuts fade, for which a block's parts are called one by one."""
        return list(self.vit.blocks) if self.factors is None else []

    def check_hiding(self) -> None:
        """Raise where this network takes no masks; it takes whole images in any case."""
        check_hiding(self.vit, self.hide)

    def timm_state(self) -> dict[str, Tensor]:
        """The network's weights for plain timm, residual decay folded in.

        Then `vit` built anew and loaded with them gives the same normed features, up to the epsilon of the
        norms (which shows where a decayed stream is not far above it, as class tokens are before training);
        without decay they are `vit.state_dict()`.
        """
        state = self.vit.state_dict()
        return state if self.factors is None else folded(self.vit, self.factors, state)

    def plain_vit(self) -> Network:
        """A network whose own forward computes what this does: `vit`, or a copy with decay folded in."""
        if self.factors is None:
            return self.vit
        plain = copy.deepcopy(self.vit)
        plain.load_state_dict(self.timm_state())
        return plain

    def tap_scales(self, layers: Sequence[int]) -> list[float]:
        """What the listed taps are here over those of plain timm with `timm_state()`; 1 without decay."""
        each = (1.0,) * self.depth if self.factors is None else products(self.factors)
        return [1.0 if i == -1 else each[i] for i in layers]

    def embed(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens before the first block, all patches among them (hidden ones as mask tokens), and what
        attention takes beside tokens: rotary positions, for each block where they are mixed, or a bias."""
        x = self.vit.patch_embed(self.normalise(images))  # (B, N, D), or (B, gh, gw, D) for dynamic sizes
        if mask is not None:
            assert self.mask_token is not None
            hidden = mask.view(*x.shape[:-1], 1)
            x = torch.where(hidden, self.mask_token.view((1,) * (x.ndim - 1) + (-1,)).to(x.dtype), x)
        if isinstance(self.vit, Beit):
            return add_class_token(self.vit, x)
        x, rope = pair(self.vit._pos_embed(x))
        return self.vit.norm_pre(x), rope

    def _embed_visible(
        self, images: Tensor, grid: tuple[int, int], visible: Int64[Tensor, "B n"]
    ) -> tuple[Tensor, Tensor | None]:
        """The visible patches alone are read, normalised and embedded."""
        self.check_hiding()
        assert not isinstance(self.vit, Beit)
        b, c = images.shape[:2]
        (gh, gw), (ph, pw) = grid, self.patch
        tiles = images.reshape(b, c, gh, ph, gw, pw).permute(0, 2, 4, 1, 3, 5)  # a view
        rows = torch.arange(b, device=images.device)[:, None]
        pixels = self.normalise(tiles[rows, visible // gw, visible % gw])  # (B, n, C, ph, pw)
        x = embed_patches(self.vit.patch_embed, pixels)
        x, rope = add_visible_positions(self.vit, x, grid, visible)
        return self.vit.norm_pre(x), rope

    def run(self, x: Tensor, extra: Tensor | None, layers: Sequence[int]) -> list[Tensor]:
        """The outputs of the listed blocks from embedded tokens; `extra` as `embed` gives it."""
        outputs = {-1: x}
        per_block = extra is not None and getattr(self.vit, "rope_mixed", False)
        for i, block in enumerate(self.vit.blocks[: max(layers) + 1]):
            step: Callable[..., Tensor] = block
            if self.factors is not None:
                step = partial(decayed, block, self.factors[i])  # type: ignore[arg-type]  # found foldable
            more = () if extra is None else (extra[i] if per_block else extra,)
            if self.activation_checkpointing and self.training:
                x = checkpoint(step, x, *more, use_reentrant=False)
            else:
                x = step(x, *more)
            if i in layers:
                outputs[i] = x
        return [outputs[i] for i in layers]


def _class_tokens(vit: Network, requested: int) -> int:
    """How many of the prefix tokens are class tokens."""
    if getattr(vit, "cls_token", None) is None:
        return 0
    if requested not in (1, vit.num_prefix_tokens):
        raise LaminaError(
            f"the network has {vit.num_prefix_tokens} prefix token(s), which cannot be {requested} class "
            "tokens; build it with as many (reg_tokens is one less)"
        )
    return requested
