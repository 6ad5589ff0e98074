"""The verbs `lamina evaluate segment` and `detect`: classes of pixels and objects, from an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
import yaml

from lamina.cli.evaluate_trained import console, run_training
from lamina.cli.parse import peek
from lamina.cli.parse_protocol import TrainingArguments, parse_training
from lamina.cli.pretrain import tell_bytes, tell_memory
from lamina.cli.progress import ImagesBar
from lamina.core.config import to_mapping
from lamina.evaluate.dense.plan import DensePlan
from lamina.evaluate.detect.build import estimate_detection, plan_detection
from lamina.evaluate.detect.protocol import evaluate_detect
from lamina.evaluate.detect.recipes import DetectRecipe, detect_recipe
from lamina.evaluate.score import Score
from lamina.evaluate.segment.build import estimate_segmentation, plan_segmentation
from lamina.evaluate.segment.protocol import evaluate_segment
from lamina.evaluate.segment.recipes import SegmentRecipe, segment_recipe
from lamina.train.distributed import choose_device


@dataclass(frozen=True)
class SegmentArguments(TrainingArguments[SegmentRecipe]):
    """Train a segmentation head from a pre-trained encoder, or remember patches for kNN; then test once.

    --head takes the recipe for small images of that head, at the encoder's own image size; --recipe a
    published one: ade20k-linear, ade20k-upernet, ade20k-dpt, ade20k-knn. The score is the data set's mIoU.
    """

    data: tyro.conf.Positional[str]
    """Images with masks: root/images/training/ beside root/annotations/training/, root/train/images/ beside
    root/train/masks/ (and val), or sample:doom."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/segment-HEAD-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from, by default HEAD-small."""


@dataclass(frozen=True)
class DetectArguments(TrainingArguments[DetectRecipe]):
    """Train Mask R-CNN from a pre-trained encoder, as ViTDet does; then test once.

    By default with small heads at the encoder's own image size (detect-small); --recipe takes ViTDet's on
    COCO: coco-vitdet-b, -l, -h. The score is COCO's mean average precision of boxes; that of masks stands
    beside it.
    """

    data: tyro.conf.Positional[str]
    """Images with objects: root/annotations/instances_{train,val}*.json beside root/{train,val}*/ (COCO), or
    sample:doom."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/detect-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from, by default detect-small."""


def segment(args: Sequence[str]) -> int:
    """`lamina evaluate segment` with its arguments; returns the exit code, raises `LaminaError`."""
    arguments = parse_training(
        SegmentArguments, "segment", args, lambda a: segment_recipe(peek(a, "--recipe"), peek(a, "--head"))
    )
    return run_training(arguments, _describe_segment, partial(_with_bar, evaluate_segment), say_folder=True)


def detect(args: Sequence[str]) -> int:
    """`lamina evaluate detect` with its arguments; returns the exit code, raises `LaminaError`."""
    arguments = parse_training(DetectArguments, "detect", args, lambda a: detect_recipe(peek(a, "--recipe")))
    return run_training(arguments, _describe_detect, partial(_with_bar, evaluate_detect), say_folder=True)


def _with_bar(evaluate: Callable[..., Score], *given: Any, **named: Any) -> Score:
    with ImagesBar() as bar:
        return evaluate(*given, **named, progress=bar)


def _describe_segment(arguments: SegmentArguments) -> None:
    planned = plan_segmentation(arguments.model, arguments.data, arguments.fields, encoder=arguments.options)
    if not planned.recipe.trains:
        _describe(planned, "nothing is trained")
        return
    train = planned.recipe.train
    memory = tell_memory(estimate_segmentation(planned), train.micro_batch_size or train.batch_size)
    _describe(planned, _steps(planned), memory)


def _describe_detect(arguments: DetectArguments) -> None:
    planned = plan_detection(arguments.model, arguments.data, arguments.fields, encoder=arguments.options)
    at_once = planned.recipe.train.micro_batch_size or 1
    memory, more = (estimate_detection(planned, count) for count in (at_once, at_once + 1))
    each = tell_bytes(more.total - memory.total)
    further = f"each further image at a time {each} (train.micro_batch_size)"
    _describe(planned, _steps(planned), tell_memory(memory, at_once), further)


def _steps(planned: DensePlan[Any, Any]) -> str:
    return f"{planned.total_steps} steps of {planned.recipe.train.batch_size}"


def _describe(planned: DensePlan[Any, Any], steps: str, *memory: str) -> None:
    """The resolved recipe, the network, the steps and the memory of a training that is not started."""
    shown = {"recipe": to_mapping(planned.recipe), "network": to_mapping(planned.encoder)}
    console.print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), markup=False)
    parts = planned.data
    choose_device(planned.recipe.train.device)
    counted = f"{len(parts.train.images)} training and {len(parts.test.images)} test images"
    for line in (f"{counted}, {len(parts.classes)} classes; {steps}", *memory, *planned.notes):
        console.print(line, markup=False)
