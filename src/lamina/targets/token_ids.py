"""Ids of a discrete tokenizer as the target (BEiT)."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import Frozen, WeightsId, identify
from lamina.core.patches import grid_of


@runtime_checkable
class Tokenizer(Protocol):
    """An `nn.Module` that names each square of `stride` x `stride` px by an id below `vocabulary`."""

    @property
    def vocabulary(self) -> int: ...

    @property
    def stride(self) -> int: ...

    def ids(self, images: Float[Tensor, "B C H W"]) -> Int64[Tensor, "B h w"]:
        """Ids of images on [0, 1]; the tokenizer scales them as it was trained."""


class TokenIds(nn.Module):
    """The id of every patch under a frozen tokenizer (BEiT, Bao et al., arXiv 2106.08254).

    The image is resized so that one id falls on each patch: 224 px in patches of 16 to 112 px for a stride
    of 8. Bicubic, antialiased; BEiT's loader crops a second, smaller view of the same region with PIL's
    Lanczos, from the file instead of from the crop. In float32 whatever surrounds it, for in less precision
    near ties flip.

    Args:
        tokenizer: an `nn.Module` that is a `Tokenizer`; it is frozen in place and stays out of the state.
        patch: height and width of the student's patch in px.
        identity: name and hash; None takes the class's name and the hash of the weights.

    Raises:
        LaminaError: for what is no tokenizer, and images that patches do not tile.
    """

    def __init__(
        self, tokenizer: nn.Module, patch: tuple[int, int], identity: WeightsId | None = None
    ) -> None:
        super().__init__()
        if missing := [name for name in ("ids", "vocabulary", "stride") if not hasattr(tokenizer, name)]:
            raise LaminaError(
                f"a {type(tokenizer).__name__} is no tokenizer, it has no {missing[0]!r}; give "
                "lamina.tokenizer.dalle.DalleTokenizer or DiscreteVAE"
            )
        self.frozen = Frozen(tokenizer)
        self.identity = identity or identify(type(tokenizer).__name__, tokenizer)
        self.patch = patch

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer."""
        return self.frozen.net  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """Size of the vocabulary: what is predicted is a logit for each id."""
        return self.tokenizer.vocabulary

    def forward(self, images: Shaped[Tensor, "B C H W"]) -> tuple[Int64[Tensor, "B N"], None]:
        """The id of every patch, and no scores."""
        rows, columns = grid_of(images, self.patch)
        size = (rows * self.tokenizer.stride, columns * self.tokenizer.stride)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            pixels = _resized(unit_float(images).float(), size)
            return self.tokenizer.ids(pixels).flatten(1), None

    @property
    def can_decode(self) -> bool:
        """Whether the tokenizer makes images of ids."""
        has_networks = getattr(self.tokenizer, "decoder", True) is not None
        return has_networks and hasattr(self.tokenizer, "decode")

    def decode_ids(
        self, ids: Int64[Tensor, "B N"], grid: tuple[int, int] | None = None
    ) -> Float[Tensor, "B C H W"]:
        """The images on [0, 1] that ids stand for, in the student's size.

        Args:
            ids: one for each patch, as `forward` gives them or a student predicts them.
            grid: rows and columns of patches; None for a square.

        Raises:
            LaminaError: where the tokenizer cannot decode, and for a grid of another number of patches.
        """
        if not self.can_decode:
            raise LaminaError(
                f"this {type(self.tokenizer).__name__} makes no images of ids; give one with a decoder"
            )
        side = math.isqrt(ids.shape[1])
        rows, columns = grid or (side, side)
        if rows * columns != ids.shape[1]:
            raise LaminaError(f"{ids.shape[1]} ids are no grid of {rows} x {columns}; give the grid")
        size = (rows * self.patch[0], columns * self.patch[1])
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            made: Tensor = self.tokenizer.decode(ids.reshape(-1, rows, columns))  # type: ignore[attr-defined]
            return _resized(made, size)

    def after_step(self, step: int) -> None:
        """Nothing moves: the tokenizer is frozen."""


def _resized(images: Float[Tensor, "B C H W"], size: tuple[int, int]) -> Float[Tensor, "B C h w"]:
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
