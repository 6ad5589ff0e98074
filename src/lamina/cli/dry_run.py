"""What `--dry-run` prints: the complete recipe, the steps and the memory of a training."""

from __future__ import annotations

from typing import Any

import torch
import yaml

from lamina.cli.arguments import DetectArguments, LabelTrainingArguments, SegmentArguments
from lamina.cli.output import say
from lamina.core.config import in_words, to_mapping
from lamina.core.durations import duration_text
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
from lamina.plan.fit import estimated_length, fit_to_data
from lamina.plan.memory import MemoryEstimate, estimate_memory
from lamina.plan.options import AS_GIVEN, Fitting
from lamina.plan.outlook import Outlook
from lamina.pretraining import changes_of_run
from lamina.recipes.build import build_task, compose_task
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import data_facts
from lamina.runs.run import Run
from lamina.train.checking import check_training
from lamina.train.distributed import Ranks, choose_device
from lamina.train.options import plan_run


def describe(
    recipe: Recipe,
    data: str,
    part: Split | None = None,
    init: str | None = None,
    own: Run | None = None,
    fitting: Fitting = AS_GIVEN,
) -> None:
    """The complete recipe, the steps, the memory and the time of a run that is not started, on a part of the
    data.

    Refuses what the run would refuse: images, parts, teachers, its device, its optimiser, weights to start
    from that do not fit, and, of a run that is resumed (`own`), options that may not change.
    """
    source = open_source(data, part)
    for note in source.notes:
        say(f"data: {note}")
    device = choose_device(recipe.train.device)
    if own is not None:
        fitting = AS_GIVEN
    recipe, outlook = fit_to_data(recipe, source, Ranks(0, 1, device), fitting)
    assert outlook is not None  # of rank 0
    resolved = complete(recipe, source, own.init() if own else init, own.recipe() if own else None).recipe
    for note in outlook.facts.notes:
        say(f"data: {note}")
    if own is not None:
        changes_of_run(own, resolved, data_facts(data, source), init)
    resolved = estimated_length(resolved, outlook, fitting)
    say(yaml.safe_dump(to_mapping(resolved), sort_keys=False, allow_unicode=True))
    plan = plan_run(resolved.train, len(source))
    with torch.device("meta"):
        task = compose_task(resolved)
    warnings = check_training(task, resolved.optim, resolved.train, plan)
    if init is not None and own is None:
        loaded = init_from_file(build_task(resolved).encoder, init, resolved.encoder.init_channels)
        say(f"would start from {init}: {loaded}")
    say(
        f"{len(source)} images, {plan.total_steps} steps of {plan.batch_size}, "
        f"{plan.steps_per_epoch:.1f} steps per epoch"
    )
    batch = resolved.train.micro_batch_size or resolved.train.batch_size
    say(memory_text(estimate_memory(resolved, batch), batch, resolved.train.precision))
    for line in (
        *_estimated(resolved, outlook, fitting),
        *outlook.advice,
        *outlook.warnings(resolved),
        *warnings,
    ):
        say(line)


def _estimated(resolved: Recipe, outlook: Outlook, fitting: Fitting) -> list[str]:
    """The device and the time, and how they are known; then what was chosen, and why."""
    seconds, precision = outlook.seconds(resolved), resolved.train.precision
    lines = [f"device: {outlook.machine}, {precision}"]
    rate = outlook.machine.rates.get(precision)
    if seconds is not None and rate is not None:
        lines.append(
            f"time: about {duration_text(seconds)}, estimated from the operations of a step, the speed of "
            f"matrix products here ({rate / 1e9:,.0f} GFLOP/s) and the decoding of a few images; the run "
            "says it anew after its first steps"
        )
    if fitting.seconds is not None:
        lines.append("the steps follow from this estimate; the run measures real steps before it starts")
    width = max((len(change.name) for change in outlook.changes), default=0)
    lines += ["chosen for these images and this machine:"] if outlook.changes else []
    lines += [f"  {c.name:{width}}  {in_words(c.value)}: {c.reason}" for c in outlook.changes]
    return lines


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
    images = train.micro_batch_size or train.batch_size
    memory = memory_text(estimate_segmentation(plan), images, train.precision)
    _describe_dense(plan, _steps(plan), memory)


def describe_detect(arguments: DetectArguments) -> None:
    """As `describe`, of a training for detection."""
    plan = plan_detection(arguments.model, arguments.data, arguments.fields, encoder=arguments.options)
    images = plan.recipe.train.micro_batch_size or 1
    memory, more = (estimate_detection(plan, count) for count in (images, images + 1))
    each = bytes_text(more.total - memory.total)
    further = f"each further image at a time takes {each} (train.micro_batch_size)"
    _describe_dense(plan, _steps(plan), memory_text(memory, images, plan.recipe.train.precision), further)


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


def memory_text(estimate: MemoryEstimate, batch: int, precision: str) -> str:
    """An estimate of memory in two lines."""
    n = estimate.parameters
    trained = f"{n / 1e6:.1f} M" if n >= 100_000 else f"{n:,}"
    total, *parts = map(
        bytes_text, (estimate.total, estimate.weights, estimate.training, estimate.activations)
    )
    at_a_time = f"{counted(batch, 'image')} at a time"
    return (
        f"{trained} parameters to train; about {total} in {precision} for {at_a_time}\n"
        f"(weights {parts[0]}, gradients and optimiser {parts[1]}, activations {parts[2]})"
    )


def bytes_text(n: float) -> str:
    """A number of bytes in GiB, or in MiB below a tenth of a GiB."""
    return f"{n / 2**30:.2f} GiB" if n >= 2**30 / 10 else f"{n / 2**20:.1f} MiB"
