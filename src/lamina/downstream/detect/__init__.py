"""Detection and instance segmentation: ViTDet's Mask R-CNN on a plain ViT, judged by COCO's AP."""

from __future__ import annotations

from lamina.downstream.detect.building import Planned, estimate_detection, plan_detection
from lamina.downstream.detect.detecting import evaluate_detect
from lamina.downstream.detect.objects import DetectData
from lamina.downstream.detect.recipe import DetectRecipe, detect_recipe, detect_recipes

__all__ = [
    "DetectData",
    "DetectRecipe",
    "Planned",
    "detect_recipe",
    "detect_recipes",
    "estimate_detection",
    "evaluate_detect",
    "plan_detection",
]
