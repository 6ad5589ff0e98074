"""Pyramid and heads of detection, and how far attention reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_if, read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Range, RangeChecked, check_ranges

SCALES = (4.0, 2.0, 1.0, 0.5)
"""Sizes of the maps of a pyramid over that of the encoder's."""


def check_scales(scales: Sequence[float]) -> None:
    """Raise for scales that the pyramid does not have."""
    start = SCALES.index(scales[0]) if scales and scales[0] in SCALES else len(SCALES)
    if not scales or tuple(scales) != SCALES[start : start + len(scales)]:
        raise LaminaError(f"scales {tuple(scales)} are no part of {SCALES}; give some that follow each other")


@dataclass(frozen=True)
class HeadOptions:
    """Options of the pyramid and the heads of Mask R-CNN. The defaults are those of ViTDet."""

    scales: Annotated[tuple[float, ...] | None, POSITIVE] = (4.0, 2.0, 1.0, 0.5)
    """Sizes of the maps of the pyramid, relative to the map of the encoder, the largest first; one more map
    is pooled from the last. None: those with a stride of 4 px or more."""
    channels: Annotated[int, COUNT] = 256
    """Number of channels of the pyramid and of the convolutions in the heads."""
    anchor_strides: Annotated[float, POSITIVE] = 8.0
    """Side of the anchors of a map, as a multiple of its stride: 8 gives 32 px at a stride of 4 px."""
    anchor_ratios: Annotated[tuple[float, ...], POSITIVE] = (0.5, 1.0, 2.0)
    """Aspect ratios (height / width) of the anchors."""
    anchor_iou: Annotated[float, Range(0.3, 1)] = 0.7
    """Smallest IoU at which an anchor is a positive example of an object. Below 0.3 it is a negative one."""
    proposal_convs: Annotated[int, COUNT] = 2
    """Number of convolutions in the region proposal head."""
    proposals_train: Annotated[int, COUNT] = 1000
    """Number of proposals of an image that are kept in training; each map gives up to twice as many before
    non-maximum suppression."""
    proposals_test: Annotated[int, COUNT] = 1000
    """Number of proposals of an image that are kept in the test, and of each map before non-maximum
    suppression."""
    anchor_samples: Annotated[int, COUNT] = 256
    """Number of anchors of an image that the proposal loss is computed on, at most half of them positive."""
    region_samples: Annotated[int, COUNT] = 512
    """Number of regions of an image that the loss of the heads is computed on, at most a quarter of them
    positive."""
    pool_samples: Annotated[int, NOT_NEGATIVE] = 0
    """Number of samples along each side of a bin of RoIAlign. 0: as many as the bin has cells."""
    box_convs: Annotated[int, NOT_NEGATIVE] = 4
    """Number of convolutions in the box head."""
    box_width: Annotated[int, COUNT] = 1024
    """Width of the box head's fully connected layer."""
    mask_convs: Annotated[int, COUNT, read_if("masks", True)] = 4
    """Number of convolutions in the mask head."""
    masks: bool = True
    """Also train a mask head, where the objects have masks."""
    least_score: Annotated[float, SHARE] = 0.05
    """Smallest score of a detection that is kept."""
    nms_iou: Annotated[float, SHARE] = 0.5
    """IoU above which non-maximum suppression removes the detection with the lower score, within a class."""
    most_detections: Annotated[int, COUNT] = 100
    """Largest number of detections of an image."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if not self.anchor_ratios:
            raise LaminaError("head.anchor_ratios is empty; give one ratio or more")
        if self.scales is not None:
            check_scales(self.scales)


@dataclass(frozen=True)
class AttentionOptions(RangeChecked):
    """Options of attention within windows."""

    window: Annotated[int | None, COUNT] = None
    """Side, in patches, of the windows within which the other blocks attend (ViTDet: 14). None: all blocks
    attend globally."""
    global_blocks: Annotated[tuple[int, ...] | None, NOT_NEGATIVE, read_unless("window", None)] = None
    """Blocks, counted from 0, that attend globally. By default the last one of each quarter: 2 5 8 11 of
    12."""
