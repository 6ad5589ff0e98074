"""From a recipe, a model and images with objects to what is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from lamina.core.batch import Batch
from lamina.core.rng import Purpose, seed_for, torch_seed
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.dense.encoder import new_encoder, resized_encoder
from lamina.evaluate.dense.plan import DensePlan, plan_dense
from lamina.evaluate.detect.coco_metrics import check_metric
from lamina.evaluate.detect.data import DetectData, label_notes, open_detect_data
from lamina.evaluate.detect.detector import Detector
from lamina.evaluate.detect.memory_model import MemoryModel
from lamina.evaluate.detect.recipes import DetectRecipe, detect_recipe
from lamina.interop.backbone import Backbone
from lamina.plan.memory import MemoryEstimate, count_memory

DetectPlan = DensePlan[DetectData, DetectRecipe]


def plan_detection(
    model: str | Path | Backbone,
    data: str | Path | DetectData,
    recipe: DetectRecipe | None = None,
    encoder: str | EncoderOptions | None = None,
) -> DetectPlan:
    """Open model and images, complete the recipe, and refuse what does not fit. Where there
    are no masks, none are learned.

    Args: as `evaluate_detect` of `lamina.evaluate.detect.protocol`.

    Raises:
        LaminaError: one line on what is wrong with the model, the data or the recipe.
    """
    check_metric()
    opened, chosen = open_detect_data(data), recipe or detect_recipe()
    chosen = replace(chosen, head=replace(chosen.head, masks=chosen.head.masks and opened.has_masks))
    planned = plan_dense(model, opened, chosen, encoder, label_notes, detect_recipe)
    with torch.device("meta"):  # options that do not fit this encoder say so
        _meta(planned)
    return planned


def build_detector(planned: DetectPlan) -> Detector:
    """The detector to train: the model's network at the windows' size, with its weights, and pyramid and
    heads that start from the recipe's seed; torch's own generator stays as it was."""
    with torch_seed(seed_for(planned.recipe.train.seed, Purpose.INIT)):
        return _detector(planned, resized_encoder(planned.backbone, planned.encoder))


def estimate_detection(planned: DetectPlan, images: int = 1) -> MemoryEstimate:
    """Memory of a training step with so many images at a time, without computing anything."""
    with torch.device("meta"):
        batch = Batch(torch.empty(images, planned.encoder.in_chans, *planned.recipe.window.pixels))
        outline = MemoryModel(_meta(planned), planned.recipe.head)
        return count_memory(outline, batch, planned.recipe.train.precision, planned.recipe.optim.kind)


def _meta(planned: DetectPlan) -> Detector:
    return _detector(planned, new_encoder(planned.encoder)).train()


def _detector(planned: DetectPlan, encoder: Encoder) -> Detector:
    recipe = planned.recipe
    return Detector(encoder, len(planned.data.classes), recipe.attention, recipe.head, recipe.encoder.frozen)
