"""Pyramid and heads of detection, and how far attention reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_if, read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, check_ranges

SCALES = (4.0, 2.0, 1.0, 0.5)
"""Sizes of the maps of a pyramid over that of the encoder's."""


def check_scales(scales: Sequence[float]) -> None:
    """Raise for scales that the pyramid does not have."""
    start = SCALES.index(scales[0]) if scales and scales[0] in SCALES else len(SCALES)
    if not scales or tuple(scales) != SCALES[start : start + len(scales)]:
        raise LaminaError(f"scales {tuple(scales)} are no part of {SCALES}; give some that follow each other")


@dataclass(frozen=True)
class HeadOptions:
    """Pyramid and heads of Mask R-CNN; the defaults are ViTDet's."""

    scales: Annotated[tuple[float, ...] | None, POSITIVE] = (4.0, 2.0, 1.0, 0.5)
    """Sizes of the pyramid's maps over that of the encoder's, the largest first; one more is pooled. Unset
    means those with strides from 4 px on."""
    channels: Annotated[int, COUNT] = 256
    """Channels of the pyramid and of convolutions in the heads."""
    anchor_strides: Annotated[float, POSITIVE] = 8.0
    """Side of a map's anchors over its stride (32 px at a stride of 4)."""
    anchor_ratios: Annotated[tuple[float, ...], POSITIVE] = (0.5, 1.0, 2.0)
    """Heights of anchors over their widths."""
    anchor_iou: Annotated[float, Range(0.3, 1)] = 0.7
    """Overlap from which on an anchor stands for an object; below 0.3 it stands for none."""
    proposal_convs: Annotated[int, COUNT] = 2
    """Convolutions of the head that proposes regions."""
    proposals_train: Annotated[int, COUNT] = 1000
    """Regions of an image that are kept in training; twice as many of each map before they are thinned."""
    proposals_test: Annotated[int, COUNT] = 1000
    """Regions of an image that are kept in the test, and of each map before they are thinned."""
    anchor_samples: Annotated[int, COUNT] = 256
    """Anchors of an image that proposing learns from, half of them on objects where there are as many."""
    region_samples: Annotated[int, COUNT] = 512
    """Regions of an image that the heads learn from, a quarter of them on objects at most."""
    pool_samples: Annotated[int, NOT_NEGATIVE] = 0
    """Samples along a side of each value that is pooled from a region; 0 means one for each cell there."""
    box_convs: Annotated[int, NOT_NEGATIVE] = 4
    """Convolutions of the box head."""
    box_width: Annotated[int, COUNT] = 1024
    """Width of the box head's fully connected layer."""
    mask_convs: Annotated[int, COUNT, read_if("masks", True)] = 4
    """Convolutions of the mask head."""
    masks: bool = True
    """Whether masks are learned too, where the objects have them."""
    least_score: Annotated[float, SHARE] = 0.05
    """Detections below it are left out."""
    nms_iou: Annotated[float, SHARE] = 0.5
    """Of two detections of a class that overlap more, the one with the lower score is left out."""
    most_detections: Annotated[int, COUNT] = 100
    """Detections of an image."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if not self.anchor_ratios:
            raise LaminaError("head.anchor_ratios is empty; give one ratio or more")
        if self.scales is not None:
            check_scales(self.scales)


@dataclass(frozen=True)
class AttentionOptions:
    """How far attention reaches."""

    window: Annotated[int | None, COUNT] = None
    """Side, in patches, of the windows that attention keeps to outside of the global blocks (ViTDet: 14);
    unset: attention is global in all blocks."""
    global_blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE, read_unless("window", None)] = None
    """Blocks in which attention is global; unset: the last of each quarter (2 5 8 11 of 12)."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
