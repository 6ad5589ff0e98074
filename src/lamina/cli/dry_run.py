"""What `--dry-run` prints: the complete recipe, the steps and the memory of a training."""

from __future__ import annotations

from typing import Any

import torch
import yaml

from lamina.cli.arguments import DetectArguments, LabelTrainingArguments, SegmentArguments
from lamina.cli.output import say
from lamina.core.config import to_mapping
from lamina.core.text import counted
from lamina.data.open import open_source
from lamina.data.sources import Split
from lamina.evaluate.dense.plan import DensePlan
from lamina.evaluate.detect.build import estimate_detection, plan_detection
from lamina.evaluate.finetune.adapt import adapt_recipe
from lamina.evaluate.segment.build import estimate_segmentation, plan_segmentation
from lamina.interop.complete import complete
from lamina.interop.init_weights import init_from_file
from lamina.interop.load import load_encoder
from lamina.pretraining import changes_of_run
from lamina.recipes.build import build_task, compose_task
from lamina.recipes.memory import MemoryEstimate, estimate_memory
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import data_facts
from lamina.runs.run import Run
from lamina.train.checking import check_training
from lamina.train.distributed import choose_device
from lamina.train.options import plan_run


def describe(
    recipe: Recipe, data: str, part: Split | None = None, init: str | None = None, own: Run | None = None
) -> None:
    """The complete recipe, the steps and the memory of a run that is not started, on a part of the data.

    Refuses what the run would refuse: images, parts, teachers, its device, its optimiser, weights to start
    from that do not fit, and, of a run that is resumed (`own`), options that may not change.
    """
    source = open_source(data, part)
    images = len(source)
    for note in source.notes:
        say(f"data: {note}")
    resolved = complete(recipe, source, own.init() if own else init, own.recipe() if own else None).recipe
    if own is not None:
        changes_of_run(own, resolved, data_facts(data, source), init)
    say(yaml.safe_dump(to_mapping(resolved), sort_keys=False, allow_unicode=True))
    plan = plan_run(recipe.train, images)
    with torch.device("meta"):
        task = compose_task(resolved)
    warnings = check_training(task, recipe.optim, recipe.train, plan)
    if init is not None and own is None:
        loaded = init_from_file(build_task(resolved).encoder, init, resolved.encoder.init_channels)
        say(f"would start from {init}: {loaded}")
    say(
        f"{images} images, {plan.total_steps} steps of {recipe.train.batch_size}, "
        f"{plan.steps_per_epoch:.1f} steps per epoch"
    )
    batch = recipe.train.micro_batch_size or recipe.train.batch_size
    say(memory_text(estimate_memory(resolved, batch), batch))
    for line in warnings:
        say(line)


def describe_on_labels(arguments: LabelTrainingArguments) -> None:
    """As `describe`, of a training on labels from a pre-trained encoder."""
    backbone = load_encoder(arguments.model, encoder=arguments.options)
    chosen, notes = adapt_recipe(arguments.fields, backbone, open_source(arguments.data, "train"))
    describe(chosen, arguments.data, "train")
    for note in notes:
        say(note)


def describe_segment(arguments: SegmentArguments) -> None:
    """As `describe`, of a training for segmentation."""
    plan = plan_segmentation(arguments.model, arguments.data, arguments.fields, encoder=arguments.options)
    if not plan.recipe.trains:
        _describe_dense(plan, "nothing is trained")
        return
    train = plan.recipe.train
    memory = memory_text(estimate_segmentation(plan), train.micro_batch_size or train.batch_size)
    _describe_dense(plan, _steps(plan), memory)


def describe_detect(arguments: DetectArguments) -> None:
    """As `describe`, of a training for detection."""
    plan = plan_detection(arguments.model, arguments.data, arguments.fields, encoder=arguments.options)
    images = plan.recipe.train.micro_batch_size or 1
    memory, more = (estimate_detection(plan, count) for count in (images, images + 1))
    each = bytes_text(more.total - memory.total)
    further = f"each further image at a time takes {each} (train.micro_batch_size)"
    _describe_dense(plan, _steps(plan), memory_text(memory, images), further)


def _steps(plan: DensePlan[Any, Any]) -> str:
    return f"{plan.total_steps} steps of {plan.recipe.train.batch_size}"


def _describe_dense(plan: DensePlan[Any, Any], steps: str, *memory: str) -> None:
    """The complete recipe, the network, the steps and the memory."""
    shown = {"recipe": to_mapping(plan.recipe), "network": to_mapping(plan.encoder)}
    say(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True))
    choose_device(plan.recipe.train.device)
    counts = f"{len(plan.data.train.images)} training and {len(plan.data.test.images)} test images"
    for line in (f"{counts}, {len(plan.data.classes)} classes; {steps}", *memory, *plan.notes):
        say(line)


def memory_text(estimate: MemoryEstimate, batch: int) -> str:
    """An estimate of memory in two lines."""
    n = estimate.parameters
    trained = f"{n / 1e6:.1f} M" if n >= 100_000 else f"{n:,}"
    total, *parts = map(
        bytes_text, (estimate.total, estimate.weights, estimate.training, estimate.activations)
    )
    return (
        f"{trained} parameters to train; about {total} in fp32 for {counted(batch, 'image')} at a time\n"
        f"(weights {parts[0]}, gradients and optimiser {parts[1]}, activations {parts[2]})"
    )


def bytes_text(n: float) -> str:
    """A number of bytes in GiB, or in MiB below a tenth of a GiB."""
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 / 10 else f"{n / 2**20:.1f} MiB"
