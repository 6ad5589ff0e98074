"""How many floating point operations a training step does for an image, counted without computing them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lamina.plan.memory import meta_step
from lamina.recipes.recipe import Recipe

IMAGES = 8
"""Images of the step that is counted. What is computed once for a batch counts by this part of it."""


@dataclass(frozen=True)
class Flops:
    """Operations for one image: a multiplication and an addition count as two, and of all operations matrix
    products and attention alone are counted, as is usual for model FLOPs (PaLM, arXiv 2204.02311, appendix
    B).
    """

    encoder: float
    """Forward pass of the encoder, on the patches that it sees."""
    fusion: float
    decoder: float
    other: float
    """Forward pass of all else: further branches, targets that are computed from the image."""
    training: float
    """Forward and backward pass of everything."""

    @property
    def forward(self) -> float:
        """The forward pass of everything."""
        return self.encoder + self.fusion + self.decoder + self.other


def count_flops(recipe: Recipe, images: int = IMAGES) -> Flops:
    """Operations of a resolved recipe's training step for one image.

    They are read off a step on torch's "meta" device, where tensors have shapes and no content. Frozen
    teachers and tokenizers are not loaded there, so their forward pass is not in it. Activation checkpointing
    computes blocks again; these operations are counted too.
    """
    with torch.device("meta"):
        task, batch = meta_step(recipe, images)
        counter = FlopCounterMode(display=False)
        with counter:
            loss = task(batch)["loss"]
            forward, parts = counter.get_total_flops(), _by_part(task, counter)
            loss.backward()
    each = {name: flops / images for name, flops in parts.items()}
    other = (forward - sum(parts.values())) / images
    return Flops(**each, other=other, training=counter.get_total_flops() / images)


def _by_part(task: nn.Module, counter: FlopCounterMode) -> dict[str, int]:
    """What was counted so far in encoder, fusion and decoder; the counter names modules by the class of the
    outermost and the path below it."""
    counts = counter.get_flop_counts()
    inside = f"{type(task).__name__}." + ("mim." if hasattr(task, "mim") else "")
    return {part: sum(counts.get(inside + part, {}).values()) for part in ("encoder", "fusion", "decoder")}
