"""Detection and instance segmentation: ViTDet's Mask R-CNN on a plain ViT, judged by COCO's AP."""

from __future__ import annotations

from lamina.evaluate.detect.build import Planned, estimate_detection, plan_detection
from lamina.evaluate.detect.data import DetectData
from lamina.evaluate.detect.protocol import evaluate_detect
from lamina.evaluate.detect.recipes import DetectRecipe, detect_recipe, detect_recipes

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
