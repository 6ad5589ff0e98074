"""From a recipe, a model and images with objects to what is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lamina.batch import Batch
from lamina.downstream.dense_encoder import resized_encoder, resized_options
from lamina.downstream.detect.coco import check_metric
from lamina.downstream.detect.detector import Detector
from lamina.downstream.detect.objects import DetectData, look, open_detect_data
from lamina.downstream.detect.outline import Outline
from lamina.downstream.detect.recipe import DetectRecipe, detect_recipe
from lamina.encoder import Encoder, EncoderOptions, build_vit, wrap_vit
from lamina.errors import LaminaError
from lamina.interop import Backbone, load_encoder
from lamina.memory import MemoryEstimate, count_memory
from lamina.rng import Purpose, seed_for
from lamina.train import plan_run

COLOUR_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Planned:
    """All that a detection depends on, checked, before anything is built."""

    backbone: Backbone
    data: DetectData
    recipe: DetectRecipe
    encoder: EncoderOptions
    notes: tuple[str, ...]

    @property
    def fill(self) -> tuple[float, ...]:
        """What continues an image beyond its edge: the mean that normalisation takes off."""
        return tuple(self.backbone.encoder.mean.flatten().tolist())


def plan_detection(
    model: str | Path | Backbone,
    data: str | Path | DetectData,
    recipe: DetectRecipe | None = None,
    encoder: str | None = None,
) -> Planned:
    """Open model and images, fill in what the recipe leaves open, and find out what does not fit.

    Args: as `detecting.evaluate_detect`.

    Raises:
        LaminaError: one line on what is wrong with the model, the data or the recipe.
    """
    check_metric()
    opened = open_detect_data(data)
    backbone = model if isinstance(model, Backbone) else load_encoder(model, encoder=encoder)
    adapted, notes = adapt(recipe or detect_recipe(), backbone, opened)
    options = resized_options(backbone, adapted.window.pixels, adapted.encoder)
    planned = Planned(backbone, opened, adapted, options, (*notes, *look(opened)))
    with torch.device("meta"):  # options that do not fit this encoder say so
        _meta(planned)
    return planned


def adapt(recipe: DetectRecipe, backbone: Backbone, data: DetectData) -> tuple[DetectRecipe, tuple[str, ...]]:
    """The recipe with windows in numbers, the model's way of reading images, no larger a batch than there are
    images and no masks where there are none; and remarks on what of it did not fit.

    Raises:
        LaminaError: for a backbone that was put together by hand.
    """
    if backbone.origin is None:
        raise LaminaError("this backbone does not say how it is built; load it by its name")
    own, notes = backbone.origin.recipe, []
    window = recipe.window.resolved(backbone.image_size, backbone.encoder.patch)
    asked = recipe.window.size
    if asked is not None and window.pixels != (asked[0], asked[-1]):
        rows, columns = window.pixels
        notes.append(f"windows of {rows} x {columns} px, a multiple of the patch, in place of {asked[0]}")
    reading = {
        name: getattr(own.data, name) for name in ("exif_orientation", "alpha_background", "max_pixels")
    }
    images = replace(recipe.data, **reading)
    channels = backbone.encoder.in_chans
    if images.jitter is not None and channels not in COLOUR_CHANNELS:
        images = replace(images, jitter=None)
        notes.append(f"no colour jitter, which takes 1 or 3 channels: {channels} here")
    train, n = recipe.train, len(data.train.images)
    if n < train.batch_size:
        notes.append(f"batch {n}, all images there are, in place of {train.batch_size}")
        train = replace(train, batch_size=n)
    head = replace(recipe.head, masks=recipe.head.masks and data.has_masks)
    return replace(recipe, window=window, data=images, train=train, head=head), tuple(notes)


def build_detector(planned: Planned) -> Detector:
    """What is trained: the model's network at the windows' size, with its weights, and pyramid and heads that
    start from the recipe's seed; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(planned.recipe.train.seed, Purpose.INIT))
        return _detector(planned, resized_encoder(planned.backbone, planned.encoder))


def estimate_detection(planned: Planned, images: int = 1) -> MemoryEstimate:
    """Memory of a training step with so many images at a time, without computing anything."""
    with torch.device("meta"):
        batch = Batch(torch.empty(images, planned.encoder.in_chans, *planned.recipe.window.pixels))
        return count_memory(Outline(_meta(planned), planned.recipe.head), batch)


def total_steps(planned: Planned) -> int:
    """Steps of the training."""
    return plan_run(planned.recipe.train, len(planned.data.train.images)).total_steps


def _meta(planned: Planned) -> Detector:
    encoder = wrap_vit(build_vit(planned.encoder), planned.encoder)
    return _detector(planned, encoder).train()


def _detector(planned: Planned, encoder: Encoder) -> Detector:
    recipe = planned.recipe
    return Detector(encoder, len(planned.data.classes), recipe.attention, recipe.head, recipe.encoder.frozen)
