"""The verbs `lamina evaluate segment` and `detect`: classes of pixels and objects, from an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
import yaml

from lamina.arguments import long_names, parse, peek, read_config
from lamina.bars import ImagesBar
from lamina.commands import tell_memory
from lamina.commands_downstream import console, tell
from lamina.downstream import Going
from lamina.downstream import detect as detection
from lamina.downstream.detect import DetectRecipe, detect_recipe
from lamina.downstream.segment import (
    SegmentRecipe,
    estimate_segmentation,
    plan_segmentation,
    segment_recipe,
    total_steps,
)
from lamina.downstream.segment import evaluate_segment as run_segment
from lamina.files import check_writable
from lamina.options import merge, to_mapping
from lamina.train import is_main


@dataclass(frozen=True)
class SegmentArguments:
    """Train a segmentation head from a pre-trained encoder, or remember patches for kNN; then test once.

    --head takes the recipe for small images of that head, at the encoder's own image size; --recipe a
    published one: ade20k-linear, ade20k-upernet, ade20k-dpt, ade20k-knn. The score is the data set's mIoU.
    """

    model: tyro.conf.Positional[str]
    """A run, a step of a run (runs/mff@100), a timm name, a weights file; untrained:MODEL for its twin."""
    data: tyro.conf.Positional[str]
    """Images with masks: root/images/training/ beside root/annotations/training/, root/train/images/ beside
    root/train/masks/ (and val), or sample:doom."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/segment-HEAD-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from, by default HEAD-small."""
    config: Path | None = None
    """YAML file with fields of the recipe; options given beside it win."""
    network: str | None = None
    """timm name of the network, for a weights file that does not say."""
    resume: bool = False
    """Go on with the training in its folder, exactly where it was (or start it)."""
    overwrite: bool = False
    """Replace the training in its folder."""
    dry_run: bool = False
    """Print the resolved recipe, the steps and the memory, and stop."""
    json: Path | None = None
    """Also write the score to this file."""
    fields: Annotated[SegmentRecipe, tyro.conf.arg(name="")] = field(default_factory=SegmentRecipe)


def parse_segment(args: Sequence[str]) -> SegmentArguments:
    """Arguments of `lamina evaluate segment`: the recipe, then --config, then the options given.

    Raises:
        LaminaError: in one line, for arguments that cannot be meant.
    """
    args = long_names(args)
    recipe = segment_recipe(peek(args, "--recipe"), peek(args, "--head"))
    if (config := peek(args, "--config")) is not None:
        recipe = merge(recipe, read_config(Path(config)))
    default = SegmentArguments(model=tyro.MISSING, data=tyro.MISSING, fields=recipe)
    return parse(SegmentArguments, args, "lamina evaluate segment", default)


def evaluate_segment(arguments: SegmentArguments) -> int:
    """Segment by the recipe, or with --dry-run say what would be done; returns the exit code."""
    recipe = arguments.fields
    if arguments.dry_run:
        _describe_segment(arguments)
        return 0
    if arguments.json is not None:
        check_writable(arguments.json)
    going = Going(arguments.out, arguments.resume, arguments.overwrite, recipe.train.seed)
    with ImagesBar() as bar:
        score = run_segment(
            arguments.model,
            arguments.data,
            going,
            recipe=recipe,
            encoder=arguments.network,
            progress=bar,
        )
    if is_main():
        tell((score,), arguments.json)
        console.print(f"folder {score.settings['folder']}", markup=False)
    return 0


def _describe_segment(arguments: SegmentArguments) -> None:
    """The resolved recipe, the network, the steps and the memory of a training that is not started."""
    planned = plan_segmentation(arguments.model, arguments.data, arguments.fields, encoder=arguments.network)
    shown = {"recipe": to_mapping(planned.recipe), "network": to_mapping(planned.encoder)}
    console.print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), markup=False)
    n = len(planned.data.train.images)
    told = (
        f"{n} training and {len(planned.data.test.images)} test images, {len(planned.data.classes)} classes"
    )
    train = planned.recipe.train
    if not planned.trains:
        console.print(f"{told}; nothing is trained", markup=False)
    else:
        console.print(f"{told}; {total_steps(planned)} steps of {train.batch_size}", markup=False)
        batch = train.micro_batch_size or train.batch_size
        console.print(tell_memory(estimate_segmentation(planned), batch), markup=False)
    for note in planned.notes:
        console.print(note, markup=False)


@dataclass(frozen=True)
class DetectArguments:
    """Train Mask R-CNN from a pre-trained encoder, as ViTDet does; then test once.

    By default with small heads at the encoder's own image size (detect-small); --recipe takes ViTDet's on
    COCO: coco-vitdet-b, -l, -h. The score is COCO's mean average precision of boxes; masks have theirs beside.
    """

    model: tyro.conf.Positional[str]
    """A run, a step of a run (runs/mff@100), a timm name, a weights file; untrained:MODEL for its twin."""
    data: tyro.conf.Positional[str]
    """Images with objects: root/annotations/instances_{train,val}*.json beside root/{train,val}*/ (COCO), or
    sample:doom."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/detect-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from, by default detect-small."""
    config: Path | None = None
    """YAML file with fields of the recipe; options given beside it win."""
    network: str | None = None
    """timm name of the network, for a weights file that does not say."""
    resume: bool = False
    """Go on with the training in its folder, exactly where it was (or start it)."""
    overwrite: bool = False
    """Replace the training in its folder."""
    dry_run: bool = False
    """Print the resolved recipe, the steps and the memory, and stop."""
    json: Path | None = None
    """Also write the score to this file."""
    fields: Annotated[DetectRecipe, tyro.conf.arg(name="")] = field(default_factory=DetectRecipe)


def parse_detect(args: Sequence[str]) -> DetectArguments:
    """Arguments of `lamina evaluate detect`: the recipe, then --config, then the options given.

    Raises:
        LaminaError: in one line, for arguments that cannot be meant.
    """
    args = long_names(args)
    recipe = detect_recipe(peek(args, "--recipe"))
    if (config := peek(args, "--config")) is not None:
        recipe = merge(recipe, read_config(Path(config)))
    default = DetectArguments(model=tyro.MISSING, data=tyro.MISSING, fields=recipe)
    return parse(DetectArguments, args, "lamina evaluate detect", default)


def evaluate_detect(arguments: DetectArguments) -> int:
    """Detect by the recipe, or with --dry-run say what would be done; returns the exit code."""
    recipe = arguments.fields
    if arguments.dry_run:
        _describe_detect(arguments)
        return 0
    if arguments.json is not None:
        check_writable(arguments.json)
    going = Going(arguments.out, arguments.resume, arguments.overwrite, recipe.train.seed)
    with ImagesBar() as bar:
        score = detection.evaluate_detect(
            arguments.model,
            arguments.data,
            going,
            recipe=recipe,
            encoder=arguments.network,
            progress=bar,
        )
    if is_main():
        tell((score,), arguments.json)
        console.print(f"folder {score.settings['folder']}", markup=False)
    return 0


def _describe_detect(arguments: DetectArguments) -> None:
    """The resolved recipe, the network, the steps and the memory of a training that is not started."""
    planned = detection.plan_detection(
        arguments.model, arguments.data, arguments.fields, encoder=arguments.network
    )
    shown = {"recipe": to_mapping(planned.recipe), "network": to_mapping(planned.encoder)}
    console.print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), markup=False)
    train, n = planned.recipe.train, len(planned.data.train.images)
    console.print(
        f"{n} training and {len(planned.data.test.images)} test images, {len(planned.data.classes)} classes; "
        f"{detection.total_steps(planned)} steps of {train.batch_size}",
        markup=False,
    )
    at_once = train.micro_batch_size or 1
    memory, more = (detection.estimate_detection(planned, count) for count in (at_once, at_once + 1))
    console.print(tell_memory(memory, at_once), markup=False)
    each = (more.total - memory.total) / 2**30
    console.print(f"each further image at a time {each:.2f} GiB (train.micro_batch_size)", markup=False)
    for note in planned.notes:
        console.print(note, markup=False)
