"""A plain timm ViT that sees only a part of the image and hands out the layers it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from timm.layers.patch_embed import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lamina.batch import unit_float
from lamina.errors import LaminaError
from lamina.tokens import split_indices, take

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EncoderOptions:
    """The Vision Transformer that is trained."""

    name: str = "vit_small_patch16_224"
    """A timm name of a VisionTransformer or Eva."""
    image_size: tuple[int, ...] | None = None
    """Side, or height and width, of the images in px; unset means the named model's."""
    patch_size: int | None = None
    """Side of a patch in px; unset means the named model's."""
    in_chans: int = 3
    """Channels of the images."""
    width: int | None = None
    """D, where it differs from the named model's."""
    depth: int | None = None
    """Number of blocks, where it differs from the named model's."""
    heads: int | None = None
    """Attention heads, where they differ from the named model's."""
    drop_path: float = 0.0
    """Largest rate of stochastic depth."""
    mean: tuple[float, ...] | Literal["auto"] | None = None
    """Channel means for normalisation, on [0, 1]; auto measures the data; unset means ImageNet's for three
    channels, 0.5 otherwise."""
    std: tuple[float, ...] | Literal["auto"] | None = None
    """Channel standard deviations; auto or unset as for the mean, but 0.25 in place of 0.5."""
    hide: Literal["drop", "replace"] = "drop"
    """drop: the encoder sees the visible patches alone (MAE). replace: mask tokens stand in for the hidden
    ones (SimMIM)."""
    start: Literal["mae", "simmim", "timm"] = "mae"
    """Initialisation: xavier and fixed sine-cosine positions (mae), truncated normals scaled by depth and the
    same positions (simmim), or what timm does (learned positions)."""
    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, more time."""


def timm_arguments(options: EncoderOptions) -> dict[str, Any]:
    """What `timm.create_model` needs beside the name; drop path is no part of an architecture."""
    # timm moves the final norm behind the pooling for average-pooled models; MIM needs it before.
    is_eva = timm.model_entrypoint(options.name).__module__ == "timm.models.eva"
    arguments = {
        "num_classes": 0,
        "img_size": list(options.image_size or ()) or None,
        "patch_size": options.patch_size,
        "in_chans": options.in_chans,
        "embed_dim": options.width,
        "depth": options.depth,
        "num_heads": options.heads,
        "use_fc_norm" if is_eva else "fc_norm": False,
    }
    return {name: value for name, value in arguments.items() if value is not None}


def build_vit(options: EncoderOptions) -> VisionTransformer | Eva:
    """The timm network that the options describe: no classifier, and a real final norm."""
    if not timm.is_model(options.name):
        raise LaminaError(f"timm has no model named {options.name!r}; `timm.list_models('*vit*')` lists them")
    arguments = timm_arguments(options)
    try:
        vit = timm.create_model(options.name, drop_path_rate=options.drop_path, **arguments)
    except (TypeError, AssertionError) as error:
        raise LaminaError(f"{options.name} cannot be built with {arguments}: {error}") from error
    if not isinstance(vit, VisionTransformer | Eva):
        raise LaminaError(f"{options.name} is not a timm VisionTransformer or Eva")
    return vit


class Encoder(nn.Module):
    """Wraps a built timm `VisionTransformer` or `Eva` for masked image modelling.

    `vit` stays an ordinary timm model: `encoder.vit.state_dict()` is a timm checkpoint (its classifier is
    removed, since nothing here trains it).

    Args:
        vit: the network; class token or none, registers, absolute or rotary positions.
        hide: "drop" embeds the visible patches alone (MAE); "replace" puts a learned token in place of
            the hidden ones and runs on all (SimMIM, BEiT).
        mean, std: channel statistics of the images on [0, 1].
        activation_checkpointing: recompute blocks in the backward pass.

    Raises:
        LaminaError: for networks whose positions or final norm do not allow it.
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
    ) -> None:
        super().__init__()
        self.vit = vit = _checked(vit)
        vit.reset_classifier(0, "" if getattr(vit, "attn_pool", None) is not None else None)
        self.hide = hide
        self.mask_token = nn.Parameter(torch.zeros(1, 1, vit.embed_dim)) if hide == "replace" else None
        self.activation_checkpointing = activation_checkpointing
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

    def grid_of(self, images: Shaped[Tensor, "B C H W"]) -> tuple[int, int]:
        """Rows and columns of patches of these images; raises where the network cannot take them."""
        (h, w), (ph, pw) = images.shape[-2:], self.patch
        grid = (h // ph, w // pw)
        if images.shape[1] != self.in_chans:
            raise LaminaError(
                f"images have {images.shape[1]} channels, the encoder takes {self.in_chans}; set in_chans"
            )
        if h % ph or w % pw or (grid != self.grid and not self.vit.dynamic_img_size):
            rows, columns = self.grid
            raise LaminaError(
                f"images are {h} x {w} px, the encoder takes {rows * ph} x {columns * pw}; set "
                "image_size, or build the network with dynamic_img_size=True"
            )
        return grid

    def normalise(self, images: Shaped[Tensor, "*B C H W"]) -> Float[Tensor, "*B C H W"]:
        """Stored or [0, 1] pixels, minus the mean, over the standard deviation."""
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
            raise LaminaError(f"layers {tuple(layers)} are outside -1..{self.depth - 1}")
        if mask is not None and self.hide == "drop":
            if n_visible is None:
                raise LaminaError(
                    "dropping hidden patches needs n_visible, the count of visible ones in each row"
                )
            x, rope = self._embed_visible(images, grid, split_indices(mask, n_visible)[0])
        else:
            x, rope = self._embed_all(images, mask)
        return self._blocks(self.vit.norm_pre(x), rope, layers)

    def _embed_all(self, images: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x = self.vit.patch_embed(self.normalise(images))  # (B, N, D), or (B, gh, gw, D) for dynamic sizes
        if mask is not None:
            assert self.mask_token is not None
            hidden = mask.view(*x.shape[:-1], 1)
            x = torch.where(hidden, self.mask_token.view((1,) * (x.ndim - 1) + (-1,)).to(x.dtype), x)
        return _pair(self.vit._pos_embed(x))

    def _embed_visible(
        self, images: Tensor, grid: tuple[int, int], visible: Int64[Tensor, "B n"]
    ) -> tuple[Tensor, Tensor | None]:
        """Embed the visible patches alone; prefix tokens and positions are timm's `_pos_embed` of zeros."""
        shape = (1, *grid, self.width) if self.vit.dynamic_img_size else (1, grid[0] * grid[1], self.width)
        zeros = torch.zeros(shape, device=images.device, dtype=self.vit.patch_embed.proj.weight.dtype)
        positions, rope = _pair(self.vit._pos_embed(zeros))  # (1, P + N, D)
        b, p = len(images), self.n_prefix
        x = self._patches(images, grid, visible)
        # Under autocast the projection is in half precision and the positions are not: as in timm, the sum
        # and with it the residual stream stay in single precision.
        x = x + take(positions[:, p:].expand(b, -1, -1), visible)
        x = torch.cat([positions[:, :p].expand(b, -1, -1), x], dim=1)
        return x, None if rope is None else _take_rope(rope, visible)

    def _patches(self, images: Tensor, grid: tuple[int, int], visible: Tensor) -> Tensor:
        """The patch embedding's convolution at the visible patches only: a gather and a matrix product."""
        b, c = images.shape[:2]
        (gh, gw), (ph, pw) = grid, self.patch
        tiles = images.reshape(b, c, gh, ph, gw, pw).permute(0, 2, 4, 1, 3, 5)  # a view
        rows = torch.arange(b, device=images.device)[:, None]
        pixels = self.normalise(tiles[rows, visible // gw, visible % gw])  # (B, n, C, ph, pw)
        embed = self.vit.patch_embed
        return embed.norm(F.linear(pixels.flatten(2), embed.proj.weight.flatten(1), embed.proj.bias))  # type: ignore[no-any-return]

    def _blocks(self, x: Tensor, rope: Tensor | None, layers: Sequence[int]) -> list[Tensor]:
        kept = {-1: x}
        per_block = rope is not None and getattr(self.vit, "rope_mixed", False)
        for i, block in enumerate(self.vit.blocks[: max(layers) + 1]):
            extra = () if rope is None else (rope[i] if per_block else rope,)
            if self.activation_checkpointing and self.training:
                x = checkpoint(block, x, *extra, use_reentrant=False)
            else:
                x = block(x, *extra)
            if i in layers:
                kept[i] = x
        return [kept[i] for i in layers]


def default_statistics(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel means and standard deviations: as given, else ImageNet's for colour, else 0.5 and 0.25."""
    mean = tuple(mean) if mean is not None else IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = tuple(std) if std is not None else IMAGENET_STD if channels == 3 else (0.25,) * channels
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise LaminaError(f"{name} has {len(values)} numbers for {channels} channels; give one for each")
    if min(std) <= 0:
        raise LaminaError(f"std {std} must be positive")
    return mean, std


def _checked(vit: nn.Module) -> VisionTransformer | Eva:
    name = type(vit).__name__
    if not isinstance(vit, VisionTransformer | Eva):
        raise LaminaError(
            f"{name} is not a timm VisionTransformer or Eva; other networks tie positions to the full grid"
        )
    if isinstance(vit.norm, nn.Identity):
        raise LaminaError(
            f"this {name} has no final norm before its pooling; build it with fc_norm=False "
            "(Eva: use_fc_norm=False)"
        )
    if not isinstance(vit.patch_embed, PatchEmbed):
        raise LaminaError(f"this {name} embeds patches by something other than one convolution (a hybrid?)")
    if getattr(vit.patch_drop, "prob", 0) or getattr(vit.pos_drop, "p", 0):
        raise LaminaError(
            f"this {name} drops patches or positions at random; build it with patch_drop_rate=pos_drop_rate=0"
        )
    return vit


def _pair(result: Tensor | tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    """`_pos_embed` of Eva also returns its rotary embedding."""
    return result if isinstance(result, tuple) else (result, None)


def _take_rope(rope: Tensor, visible: Int64[Tensor, "B n"]) -> Tensor:
    """Rotary embeddings of the visible patches: (B, 1, n, d), or per block (L, B, heads, n, d)."""
    if rope.ndim == 2:
        return rope[visible].unsqueeze(1)
    return rope[:, :, visible].transpose(
        1, 2
    )  # (L, heads, N, d) -> (L, heads, B, n, d) -> (L, B, heads, n, d)
