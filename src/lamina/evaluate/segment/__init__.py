"""Semantic segmentation: heads on the maps of a plain ViT, judged by the data set's mIoU."""

from __future__ import annotations

from lamina.evaluate.segment.build import Planned, estimate_segmentation, plan_segmentation
from lamina.evaluate.segment.data import SegmentData
from lamina.evaluate.segment.protocol import evaluate_segment
from lamina.evaluate.segment.recipes import SegmentRecipe, segment_recipe, segment_recipes

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
