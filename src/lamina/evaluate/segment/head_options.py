"""The heads of segmentation: their sizes, and which blocks they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, SHARE_BELOW_1, Range, check_ranges


@dataclass(frozen=True)
class LinearHeadOptions:
    """The linear head."""

    blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE] = None
    """Blocks to read, side by side; unset: the last one. DINOv2's "+ms" reads the last four."""
    dropout: Annotated[float, SHARE_BELOW_1] = 0.1
    """Of whole channels before the matrix."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


@dataclass(frozen=True)
class UperOptions:
    """UperNet on a plain ViT."""

    blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE] = None
    """Four blocks to read, the lowest first; unset: 3 5 7 11 of 12, as far up in other depths."""
    strides_px: Annotated[tuple[int, int, int, int], COUNT] = (4, 8, 16, 32)
    """Px of the image from one value of a map to the next, for each map of the pyramid."""
    channels: Annotated[int | None, COUNT] = None
    """Channels of the head; unset: the encoder's width (768 for ViT-B, as published)."""
    pools: Annotated[tuple[int, ...], COUNT] = (1, 2, 3, 6)
    """Sides of the grids that the coarsest map is pooled to."""
    dropout: Annotated[float, SHARE_BELOW_1] = 0.1
    """Of whole channels before the last matrix."""
    aux_share: Annotated[float, NOT_NEGATIVE] = 0.4
    """Weight of the auxiliary head's loss; 0: no auxiliary head."""
    aux_channels: Annotated[int, COUNT, read_unless("aux_share", 0)] = 256
    """Channels of the auxiliary head."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if not self.pools:
            raise LaminaError("uper.pools is empty; give the side of one grid or more")


@dataclass(frozen=True)
class DPTOptions:
    """DPT's decoder."""

    blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE] = None
    """Four blocks to read, the lowest first; unset: 2 5 8 11 of 12, as far up in other depths."""
    reassemble: Annotated[tuple[int, int, int, int] | None, COUNT] = None
    """Channels of the four maps before they are brought to one width; unset: 96 192 384 768 for a width of
    768, in proportion for others, and 256 512 1024 1024 from 1024 on (DPT's)."""
    channels: Annotated[int, COUNT] = 256
    """Channels of the maps that are fused."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


@dataclass(frozen=True)
class KNNHeadOptions:
    """kNN segmentation, as CAPI evaluates (arXiv 2502.08769)."""

    k: Annotated[tuple[int, ...], COUNT] = (1, 3, 10, 30)
    """Neighbours that vote; which, is chosen on a tenth of the training images."""
    images: Annotated[int | None, Range(2)] = None
    """Training images that are read, drawn by the seed; unset: all."""
    patches: Annotated[int, COUNT] = 100_000
    """Training patches that are remembered at most, as many of each image, drawn by the seed."""
    block: Annotated[int | None, NOT_NEGATIVE] = None
    """The block whose output is compared, after the final norm; unset: the last."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if not self.k:
            raise LaminaError("knn.k is empty; give one number of neighbours or more")
