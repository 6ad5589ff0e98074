"""Semantic segmentation: heads on the maps of a plain ViT, judged by the data set's mIoU."""

from __future__ import annotations

from lamina.downstream.segment.building import Planned, estimate_segmentation, plan_segmentation
from lamina.downstream.segment.maps import SegmentData
from lamina.downstream.segment.recipe import SegmentRecipe, segment_recipe, segment_recipes
from lamina.downstream.segment.segmenting import evaluate_segment

__all__ = [
    "Planned",
    "SegmentData",
    "SegmentRecipe",
    "estimate_segmentation",
    "evaluate_segment",
    "plan_segmentation",
    "segment_recipe",
    "segment_recipes",
]
