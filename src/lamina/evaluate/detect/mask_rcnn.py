"""The parts of torchvision's Mask R-CNN for a pyramid of any strides: anchors, pooling of regions, heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from lamina.evaluate.detect.head_options import HeadOptions

BOX_SIDE, MASK_SIDE = 7, 14
"""Values along a side of a pooled region, for boxes and for masks."""
_CANONICAL = 14.0
"""A box with a side of so many patches is pooled from the map of one value for a patch (FPN's 224 px)."""


class Anchors(AnchorGenerator):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's anchors at the strides of the pyramid, in float32.

    torchvision divides the image's size by that of a map, which is another stride where the map was rounded
    up, and computes in the map's precision, in which bfloat16 has no single px beyond 256.
    """

    def __init__(self, strides: Sequence[float], sides: Sequence[float], ratios: Sequence[float]) -> None:
        super().__init__(tuple((side,) for side in sides), (tuple(ratios),) * len(sides))
        self.strides = tuple(strides)

    def forward(
        self, image_list: ImageList, feature_maps: list[Float[Tensor, "B C _ _"]]
    ) -> list[Float[Tensor, "anchors 4"]]:
        """The anchors of every image, map by map."""
        device = feature_maps[0].device
        self.set_cell_anchors(torch.float32, device)
        grids = [list(each.shape[-2:]) for each in feature_maps]
        strides = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors(grids, strides))
        return [anchors] * len(image_list.image_sizes)


class Float32Output(nn.Module):
    """A head whose outputs are in float32 where autocast computes in less: boxes need px."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Any) -> Any:
        """The outputs of the head: a tensor, or sequences of tensors."""
        return _float32(self.head(x))


def region_pool(
    names: Sequence[str], strides: Sequence[float], patch_px: int, side: int, samples: int = 0
) -> MultiScaleRoIAlign:
    """RoIAlign from the map that fits a box's size (Lin et al., arXiv 1612.03144, equation 1), at the
    pyramid's own strides: torchvision takes them for powers of two.

    Args:
        names, strides: of the maps, the finest first, each stride twice the one before.
        patch_px: side of a patch.
        side: values along a side of the result.
        samples: along a side of each value; 0 means one for each cell of the map.
    """
    pool = MultiScaleRoIAlign(list(names), side, sampling_ratio=samples)
    finest = 4 + round(math.log2(strides[0] / patch_px))
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = LevelMapper(finest, finest + len(names) - 1, _CANONICAL * patch_px, 4)
    return pool


def build_rcnn(
    maps: nn.Module,
    names: Sequence[str],
    strides: Sequence[float],
    patch_px: int,
    n_classes: int,
    options: HeadOptions,
) -> FasterRCNN:
    """torchvision's Mask R-CNN, or Faster R-CNN without masks; its `rpn` and `roi_heads` are what is used.

    Args:
        maps: images to named maps, the coarsest one for proposals alone. names: those that regions are pooled
        from, the finest first. strides: of all maps in px. patch_px: side of a patch. n_classes: without the
        background, which gets label 0. options: sizes of heads, samples, thresholds.
    """
    channels, head = options.channels, options
    sides = [head.anchor_strides * stride for stride in strides]
    pooled = strides[: len(names)]
    box_head = FastRCNNConvFCHead(
        (channels, BOX_SIDE, BOX_SIDE), [channels] * head.box_convs, [head.box_width], LayerNorm2d
    )
    common: dict[str, Any] = {
        "rpn_anchor_generator": Anchors(strides, sides, head.anchor_ratios),
        "rpn_head": Float32Output(RPNHead(channels, len(head.anchor_ratios), head.proposal_convs)),
        "rpn_pre_nms_top_n_train": 2 * head.proposals_train,
        "rpn_post_nms_top_n_train": head.proposals_train,
        "rpn_pre_nms_top_n_test": head.proposals_test,
        "rpn_post_nms_top_n_test": head.proposals_test,
        "rpn_fg_iou_thresh": head.anchor_iou,
        "rpn_batch_size_per_image": head.anchor_samples,
        "box_batch_size_per_image": head.region_samples,
        "box_roi_pool": region_pool(names, pooled, patch_px, BOX_SIDE, head.pool_samples),
        "box_head": box_head,
        "box_predictor": Float32Output(FastRCNNPredictor(head.box_width, n_classes + 1)),
        "box_score_thresh": head.least_score,
        "box_nms_thresh": head.nms_iou,
        "box_detections_per_img": head.most_detections,
    }
    if not head.masks:
        return FasterRCNN(maps, **common)
    return MaskRCNN(
        maps,
        mask_roi_pool=region_pool(names, pooled, patch_px, MASK_SIDE, head.pool_samples),
        mask_head=MaskRCNNHeads(channels, [channels] * head.mask_convs, 1, LayerNorm2d),
        mask_predictor=Float32Output(MaskRCNNPredictor(channels, channels, n_classes + 1)),
        **common,
    )


def _float32(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    return type(value)(_float32(each) for each in value)
