"""From a recipe, a model and images with masks to what is trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, seed_for, torch_seed
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.dense.encoder import new_encoder, resized_encoder
from lamina.evaluate.dense.plan import DensePlan, plan_dense
from lamina.evaluate.segment.data import SegmentData, label_notes, open_segment_data
from lamina.evaluate.segment.dpt import DPT, check_dpt
from lamina.evaluate.segment.knn import block_of
from lamina.evaluate.segment.linear import LinearHead
from lamina.evaluate.segment.miou import check_metric
from lamina.evaluate.segment.recipes import HeadKind, SegmentRecipe, segment_recipe
from lamina.evaluate.segment.segmenter import Segmenter
from lamina.evaluate.segment.upernet import UperNet
from lamina.interop.backbone import Backbone
from lamina.plan.memory import MemoryEstimate, count_memory

SegmentPlan = DensePlan[SegmentData, SegmentRecipe]


def plan_segmentation(
    model: str | Path | Backbone,
    data: str | Path | SegmentData,
    recipe: SegmentRecipe | HeadKind | None = None,
    encoder: str | EncoderOptions | None = None,
) -> SegmentPlan:
    """Open model and images, complete the recipe, and refuse what does not fit.

    Args: as `evaluate_segment` of `lamina.evaluate.segment.protocol`.

    Raises:
        LaminaError: one line on what is wrong with the model, the data or the recipe.
    """
    check_metric()
    chosen = recipe if isinstance(recipe, SegmentRecipe) else segment_recipe(head=recipe)
    if chosen.head == "dpt":
        check_dpt()
    planned = plan_dense(model, open_segment_data(data), chosen, encoder, label_notes, segment_recipe)
    train = planned.recipe.train
    if chosen.head == "upernet" and _ends_alone(train.batch_size, train.micro_batch_size):
        raise LaminaError(
            "UperNet's batch norm needs two images or more at a time; change train.batch_size or "
            "train.micro_batch_size so that none is left over"
        )
    with torch.device("meta"):  # a head that does not fit this encoder says so
        block_of(planned.backbone.encoder, chosen.knn) if chosen.head == "knn" else _meta(planned)
    return planned


def build_encoder(planned: SegmentPlan) -> Encoder:
    """The model's network at the windows' size, with its weights."""
    return resized_encoder(planned.backbone, planned.encoder)


def build_segmenter(planned: SegmentPlan, encoder: Encoder) -> Segmenter:
    """The segmenter to train; the head starts from the recipe's seed, and torch's own generator stays as it
    was."""
    with torch_seed(seed_for(planned.recipe.train.seed, Purpose.INIT)):
        return _segmenter(planned, encoder)


def estimate_segmentation(planned: SegmentPlan) -> MemoryEstimate:
    """Memory of a training step, without computing anything."""
    recipe = planned.recipe
    n = recipe.train.micro_batch_size or recipe.train.batch_size
    with torch.device("meta"):
        images = torch.empty(n, planned.encoder.in_chans, *recipe.window.pixels)
        labels = torch.empty(n, *recipe.window.pixels, dtype=torch.int64)
        batch = Batch(images, labels=labels)
        return count_memory(_meta(planned), batch, recipe.train.precision, recipe.optim.kind)


def _meta(planned: SegmentPlan) -> Segmenter:
    return _segmenter(planned, new_encoder(planned.encoder)).train()


def _segmenter(planned: SegmentPlan, encoder: Encoder) -> Segmenter:
    head = _head(planned.recipe, encoder, len(planned.data.classes))
    return Segmenter(encoder, head, planned.recipe.encoder.frozen)


def _head(recipe: SegmentRecipe, encoder: Encoder, n_classes: int) -> nn.Module:
    if recipe.head == "linear":
        return LinearHead(encoder, n_classes, recipe.linear)
    if recipe.head == "upernet":
        return UperNet(encoder, n_classes, recipe.uper)
    if recipe.head == "dpt":
        return DPT(encoder, n_classes, recipe.dpt)
    raise LaminaError("kNN has nothing to train")


def _ends_alone(batch_size: int, micro_batch_size: int | None) -> bool:
    """Whether some forward would have one image."""
    return 1 in (batch_size, batch_size % (micro_batch_size or batch_size)) or micro_batch_size == 1
