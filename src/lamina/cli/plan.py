"""The verb `lamina plan`: what a run on GPUs needs, on paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lamina.cli.arguments import given_fields
from lamina.cli.config_file import with_config
from lamina.cli.output import check_json, print_table, say
from lamina.cli.parse import long_names, parse, peek
from lamina.cli.short_help import METHOD_NAMES, print_short_help
from lamina.core.config import with_fields
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, POSITIVE, check_ranges
from lamina.methods.catalog import recipe as named_recipe
from lamina.plan.choose import choose
from lamina.plan.gpus import gpu
from lamina.plan.work import DECODED_PER_CORE, USABLE
from lamina.recipes.recipe import Recipe

if TYPE_CHECKING:
    from lamina.plan.paper import PaperPlan
    from lamina.plan.parallel import RankMemory

_WIDTHS = {"tokens": 8192, "teacher": 768}
"""Numbers that are predicted for a patch, where no tokenizer or teacher says it: DALL-E's ids, a ViT-B's
width."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


_FLAGS = {
    "images": " N",
    "gpus": " N",
    "gpu": " NAME",
    "recipe": " NAME",
    "config": " FILE",
    "decoded_per_core": " RATE",
    "json": " FILE",
}
"""The options that are no fields of the recipe, and the values that they take."""
_USAGE = """\
usage: lamina plan --images N [options]

Prints what a pre-training on GPUs needs: operations, memory, time, processor
cores. Nothing is trained, and no GPU is needed.
"""


@dataclass(frozen=True)
class PlanArguments:
    """Print what a pre-training on GPUs needs: operations, memory, time and processor cores. Nothing is
    trained, and no GPU is needed.

    Without --recipe, epochs, batch size, network and precision that are not given are chosen as `lamina
    pretrain` chooses them.
    """

    images: str
    """Number of images: 50000, 1.28M, 10M, 2B."""
    gpus: Annotated[int, COUNT] = 1
    """Number of GPUs, over all machines."""
    gpu: str = "h100"
    """Kind of GPU: a100, h100, h100-pcie, h200, b200, l4, l40s, 4090, 3090, v100 or t4."""
    recipe: str | None = None
    """Method and schedule to plan for (`lamina recipes` lists them). By default mae, with what suits the
    number of images."""
    config: str | None = None
    """YAML file with fields of the recipe, such as the recipe.yaml of a run. Options of the command line
    override it."""
    decoded_per_core: Annotated[float, POSITIVE] = DECODED_PER_CORE
    """Images per second that a processor core decodes and crops. The default is measured with JPEG of 500 x
    375 px; measure your own files with `lamina data check`."""
    json: Path | None = None
    """Also write all numbers to this JSON file."""
    fields: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


def plan(_: str, args: Sequence[str]) -> int:
    """Print what a run needs; returns the exit code.

    Raises:
        LaminaError: in one line, for arguments that cannot be used.
    """
    if {"-h", "--help"} & set(args):
        print_short_help(_USAGE, PlanArguments, _FLAGS, METHOD_NAMES)
        return 0
    args = long_names(["--help" if arg == "--help-all" else arg for arg in args])
    start = with_config(named_recipe(peek(args, "--recipe") or "mae"), args)
    default = PlanArguments(images=tyro.MISSING, fields=start.recipe)
    arguments = parse(PlanArguments, args, "lamina plan", default)
    start.check(arguments.fields)
    check_json(arguments.json)
    images, device = image_count(arguments.images), gpu(arguments.gpu)
    given = start.fields | frozenset(given_fields(args))
    from lamina.core.records import write_json
    from lamina.plan.facts import ImageFacts
    from lamina.plan.machine import Machine
    from lamina.plan.outlook import chosen_text
    from lamina.plan.paper import plan_on_paper
    from lamina.recipes.build import resolve

    machine = Machine("cuda", device.title, arguments.gpus, precision="bf16" if device.bf16 else "fp16")
    # A recipe that is named is planned as it is, but for its precision, which says nothing of these GPUs.
    wanted = {"train.precision"} if arguments.recipe else None
    changes = tuple(
        change
        for change in choose(ImageFacts(images), machine, arguments.fields, given)
        if change.name != "data.workers" and (wanted is None or change.name in wanted)
    )
    recipe = with_fields(arguments.fields, {change.name: change.value for change in changes})
    paper = plan_on_paper(
        resolve(_without_data(recipe)), images, device, arguments.gpus, arguments.decoded_per_core
    )
    _print(paper, chosen_text(changes) if changes else None)
    if arguments.json is not None:
        write_json(arguments.json, paper.to_json())
    return 0


def image_count(text: str) -> int:
    """A number of images as people write it; raises for anything else."""
    found = re.fullmatch(r"(\d+(?:[_,]\d{3})*(?:\.\d+)?)([kKmMbB]?)", text.strip())
    count = float(re.sub("[_,]", "", found[1])) * _UNITS[found[2].lower()] if found else 0.0
    if count < 1 or count != round(count):
        raise LaminaError(f"--images {text} is not a number of images; give one such as 50000, 1.28M or 10M")
    return round(count)


def _without_data(recipe: Recipe) -> Recipe:
    """The recipe with what only images, teachers and tokenizers decide as it usually is."""
    recipe = replace(recipe, encoder=replace(recipe.encoder, mean=None, std=None))
    if recipe.method == "supervised" and not recipe.labels.classes:
        classes = tuple(str(i) for i in range(1000))
        recipe = replace(recipe, labels=replace(recipe.labels, classes=classes))
    if recipe.target.kind in _WIDTHS and recipe.target.width is None:
        target = replace(recipe.target, width=_WIDTHS[recipe.target.kind])
        recipe = replace(recipe, target=target)
    return recipe


def _print(paper: PaperPlan, chosen: str | None) -> None:
    from lamina.plan.outlook import network_text

    train, work = paper.recipe.train, paper.work
    epochs = work.images / paper.images
    cards = f"{paper.gpus} x {paper.gpu.title}"
    say(
        f"{paper.recipe.name}, {network_text(paper.recipe.encoder)}, fusion {paper.recipe.fusion.kind}, "
        f"{train.precision}: {paper.images:,} images, {epochs:,.4g} epochs ({work.steps:,} steps of "
        f"{work.batch_size:,}) on {cards}"
    )
    if chosen:
        say(chosen)
    _print_work(paper)
    _print_memory(paper)
    _print_time(paper)


def _print_work(paper: PaperPlan) -> None:
    flops, counts = paper.flops, paper.parameters
    rows = [
        (part, f"{counts[part] / 1e6:,.1f}", f"{getattr(flops, part) / 1e9:,.2f}")
        for part in ("encoder", "fusion", "decoder", "other")
        if counts[part] or getattr(flops, part)
    ]
    rows.append(("all, forward", f"{counts['all'] / 1e6:,.1f}", f"{flops.forward / 1e9:,.2f}"))
    rows.append(("all, forward and backward", "", f"{flops.training / 1e9:,.2f}"))
    say("")
    print_table(("work", "million parameters", "GFLOP per image"), rows, gap=3)
    if paper.recipe.target.kind in _WIDTHS or paper.recipe.labels.teacher:
        say("The forward pass of the teacher or tokenizer comes on top.")


def _print_memory(paper: PaperPlan) -> None:
    both = (paper.ddp, paper.fsdp)

    def row(title: str, of: Callable[[RankMemory], float]) -> tuple[str, ...]:
        return (title, *(f"{of(each) / 2**30:,.2f}" for each in both))

    rows = [
        row("weights", lambda m: m.weights),
        row("gradients", lambda m: m.gradients),
        row("optimiser", lambda m: m.optimizer),
        row("gathered blocks", lambda m: m.gathered),
        row("activations", lambda m: m.activations),
        row("all", lambda m: m.total),
        row("activations, recomputed", lambda m: m.recomputed),
        row("all, recomputed", lambda m: m.total_recomputed),
    ]
    say("")
    print_table((f"GiB on each GPU, {paper.micro_batch_size} images at a time", "DDP", "FSDP2"), rows, gap=3)
    say(
        f"Recomputed: with --encoder.activation-checkpointing. {100 * USABLE:.0f} % of "
        f"{paper.gpu.memory_gb:.0f} GB hold {paper.most_images:,} images at a time with DDP, recomputed "
        f"{paper.most_images_recomputed:,}."
    )


def _print_time(paper: PaperPlan) -> None:
    rows = [
        (
            f"{100 * pace.mfu:.0f} %",
            f"{pace.images_per_second:,.0f}",
            f"{pace.hours:,.4g}",
            f"{pace.hours * paper.gpus:,.4g}",
            f"{pace.decode_cores:,}",
        )
        for pace in paper.paces
    ]
    say("")
    print_table(("MFU", "images/s", "hours", "GPU hours", "cores that decode"), rows, gap=3)
    peak = paper.gpu.peak(paper.recipe.train.precision)
    say(
        f"MFU is the share of the peak rate, {peak / 1e12:,.0f} TFLOP/s for each GPU ({paper.gpu.source}). "
        f"Plan with the first row; the second one is a goal. A core decodes {paper.per_core:,.0f} images/s "
        "(--decoded-per-core)."
    )
