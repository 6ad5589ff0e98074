"""The heads of segmentation: their sizes, and which blocks they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, SHARE_BELOW_1, Range, RangeChecked, check_ranges


@dataclass(frozen=True)
class LinearHeadOptions:
    """Options of the linear head."""

    blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE] = None
    """Blocks, counted from 0, whose outputs are concatenated. By default the last one; DINOv2's "+ms" takes
    the last four."""
    dropout: Annotated[float, SHARE_BELOW_1] = 0.1
    """Probability of dropping a whole channel before the linear layer, in training."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if self.blocks == ():
            raise LaminaError("linear.blocks is empty; give one block or more")


@dataclass(frozen=True)
class UperOptions:
    """Options of UperNet on a plain ViT."""

    blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE] = None
    """Four blocks, counted from 0 and ascending, whose outputs the head reads. By default 3 5 7 11 of 12, and
    the same shares of other depths."""
    strides_px: Annotated[tuple[int, int, int, int], COUNT] = (4, 8, 16, 32)
    """Stride of each map of the pyramid, in px of the image."""
    channels: Annotated[int | None, COUNT] = None
    """Number of channels of the head. By default the encoder's width (768 for ViT-B, as published)."""
    pools: Annotated[tuple[int, ...], COUNT] = (1, 2, 3, 6)
    """Sides of the grids that pyramid pooling averages the coarsest map to."""
    dropout: Annotated[float, SHARE_BELOW_1] = 0.1
    """Probability of dropping a whole channel before the last layer, in training."""
    aux_share: Annotated[float, NOT_NEGATIVE] = 0.4
    """Weight of the loss of the auxiliary head. 0: no auxiliary head."""
    aux_channels: Annotated[int, COUNT, read_unless("aux_share", 0)] = 256
    """Number of channels of the auxiliary head."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if not self.pools:
            raise LaminaError("uper.pools is empty; give the side of one grid or more")


@dataclass(frozen=True)
class DPTOptions(RangeChecked):
    """Options of the DPT head."""

    blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE] = None
    """Four blocks, counted from 0 and ascending, whose outputs the head reads. By default 2 5 8 11 of 12, and
    the same shares of other depths."""
    reassemble: Annotated[tuple[int, int, int, int] | None, COUNT] = None
    """Number of channels of each of the four reassembled maps. By default 96 192 384 768 for an encoder of
    width 768, in proportion for other widths, and 256 512 1024 1024 from 1024 on, as published."""
    channels: Annotated[int, COUNT] = 256
    """Number of channels of the fused maps."""


@dataclass(frozen=True)
class KNNHeadOptions:
    """Options of kNN segmentation, which CAPI evaluates by (arXiv 2502.08769)."""

    k: Annotated[tuple[int, ...], COUNT] = (1, 3, 10, 30)
    """Candidates for the number of neighbours; a tenth of the training images chooses among them."""
    images: Annotated[int | None, Range(2)] = None
    """Number of training images, drawn at random by the seed. By default all."""
    patches: Annotated[int, COUNT] = 100_000
    """Largest number of training patches that are stored, equally many of each image, drawn by the seed."""
    block: Annotated[int | None, NOT_NEGATIVE] = None
    """Block, counted from 0, whose output is compared, after the final norm. By default the last one."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if not self.k:
            raise LaminaError("knn.k is empty; give one number of neighbours or more")
