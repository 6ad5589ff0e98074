"""A run on paper: work, memory and time on GPUs that nobody has to own."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.plan.flops import Flops, count_flops
from lamina.plan.gpus import GPU
from lamina.plan.memory import MemoryEstimate, estimate_memory, meta_step
from lamina.plan.parallel import RankMemory, block_bytes, under_ddp, under_fsdp
from lamina.plan.work import DECODED_PER_CORE, MFU_GOAL, MFU_PLANNED, USABLE, Work, decode_cores
from lamina.recipes.recipe import Recipe
from lamina.train.options import plan_run

PARTS = ("encoder", "fusion", "decoder")


@dataclass(frozen=True)
class Pace:
    """A run at one share of the peak rate."""

    mfu: float
    images_per_second: float
    """Of all GPUs together."""
    hours: float
    decode_cores: int
    """Processor cores for all GPUs together."""


@dataclass(frozen=True)
class PaperPlan:
    """What a run needs."""

    recipe: Recipe
    images: int
    gpu: GPU
    gpus: int
    micro_batch_size: int
    """Images in one forward pass on each GPU."""
    work: Work
    flops: Flops
    parameters: dict[str, int]
    """To be trained: of each part, of all else ("other"), and in all ("all")."""
    ddp: RankMemory
    fsdp: RankMemory
    most_images: int
    """The largest micro-batch that fits under DDP; 0 for none."""
    most_images_recomputed: int
    """The same with the encoder's blocks recomputed."""
    paces: tuple[Pace, ...]
    per_core: float
    """Images per second that a processor core decodes."""

    def to_json(self) -> dict[str, Any]:
        """All numbers."""
        numbers = asdict(self)
        del numbers["recipe"]
        return {**numbers, "encoder": self.recipe.encoder.name, "precision": self.recipe.train.precision}


def plan_on_paper(
    recipe: Recipe, images: int, gpu: GPU, gpus: int, per_core: float = DECODED_PER_CORE
) -> PaperPlan:
    """Work, memory and time of a resolved recipe on so many images and GPUs.

    Args:
        per_core: images per second that a processor core decodes.

    Raises:
        LaminaError: where the batch cannot be shared by the GPUs, or the GPU has no such arithmetic.
    """
    train = recipe.train
    if train.batch_size % gpus:
        raise LaminaError(
            f"a batch of {train.batch_size} cannot be shared by {gpus} GPUs; choose a multiple of {gpus}"
        )
    micro = min(train.micro_batch_size or train.batch_size, train.batch_size // gpus)
    peak = gpu.peak(train.precision)
    flops = count_flops(replace(recipe, encoder=replace(recipe.encoder, activation_checkpointing=False)))
    work = Work(plan_run(train, images).total_steps, train.batch_size, flops.training)
    estimate, recomputed = _memory(recipe, micro)
    more, more_recomputed = _memory(recipe, micro + 1)
    ddp = under_ddp(estimate, recomputed)
    room = USABLE * gpu.memory - ddp.fixed
    most = _that_fit(room, micro, estimate.activations, more.activations)
    most_recomputed = _that_fit(room, micro, recomputed, more_recomputed)
    return PaperPlan(
        recipe,
        images,
        gpu,
        gpus,
        micro,
        work,
        flops,
        _parameters(recipe),
        ddp,
        under_fsdp(estimate, recomputed, gpus, block_bytes(recipe)),
        most,
        most_recomputed,
        tuple(_pace(work, peak, gpus, mfu, per_core) for mfu in (MFU_PLANNED, MFU_GOAL)),
        per_core,
    )


def _pace(work: Work, peak: float, gpus: int, mfu: float, per_core: float) -> Pace:
    rate = work.images_per_second(peak, gpus, mfu)
    return Pace(mfu, rate, work.hours(peak, gpus, mfu), decode_cores(rate, per_core))


def _that_fit(room: float, images: int, activations: float, of_one_more: float) -> int:
    """How many images' activations fit into so many bytes, which grow by a line through two counts."""
    return max(0, int((room - activations) // (of_one_more - activations)) + images)


def _memory(recipe: Recipe, micro: int) -> tuple[MemoryEstimate, float]:
    """Memory of a step, and the bytes of its activations where the encoder's blocks are computed again in the
    backward pass, one at a time."""
    both = [replace(recipe.encoder, activation_checkpointing=again) for again in (False, True)]
    stored, kept = (estimate_memory(replace(recipe, encoder=encoder), micro) for encoder in both)
    with torch.device("meta"):
        depth = wrap_vit(build_vit(recipe.encoder), recipe.encoder).depth
    return stored, kept.activations + (stored.activations - kept.activations) / depth


def _parameters(recipe: Recipe) -> dict[str, int]:
    """How many parameters are trained, by part."""
    with torch.device("meta"):
        task, _ = meta_step(recipe, 1)
    inner = "mim." if hasattr(task, "mim") else ""
    counts = dict.fromkeys((*PARTS, "other"), 0)
    for name, parameter in task.named_parameters():
        part = name.removeprefix(inner).partition(".")[0]
        counts[part if part in counts else "other"] += parameter.numel() * parameter.requires_grad
    return {**counts, "all": sum(counts.values())}
