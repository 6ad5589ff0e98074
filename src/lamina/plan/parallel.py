"""What each GPU holds of a training step on several GPUs: all of it (DDP), or its share of the weights
(FSDP2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lamina.plan.memory import MemoryEstimate, meta_step
from lamina.recipes.recipe import Recipe
from lamina.train.sharding import units


@dataclass(frozen=True)
class RankMemory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    """Weights and gradients of blocks that are whole for a moment (FSDP2)."""
    activations: float
    recomputed: float
    """Activations where the encoder's blocks are computed again in the backward pass
    (--encoder.activation-checkpointing), those of one block at a time included."""

    @property
    def fixed(self) -> float:
        """What does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer + self.gathered

    @property
    def total(self) -> float:
        return self.fixed + self.activations

    @property
    def total_recomputed(self) -> float:
        return self.fixed + self.recomputed


@dataclass(frozen=True)
class BlockBytes:
    """Bytes of weights, as they are gathered by FSDP2."""

    largest: int
    """Of the largest unit: a block of the encoder, or a decoder, or a block of it."""
    outside: int
    """Of all that is in no unit, which stays whole for a step."""


def block_bytes(recipe: Recipe) -> BlockBytes:
    """What FSDP2 gathers of a resolved recipe's method, one unit after another (`lamina.train.sharding`)."""
    with torch.device("meta"):
        task, _ = meta_step(recipe, 1)
    sizes = [sum(p.nbytes for p in unit.parameters()) for unit in units(task)]
    return BlockBytes(max(sizes, default=0), sum(p.nbytes for p in task.parameters()) - sum(sizes))


def under_ddp(estimate: MemoryEstimate, recomputed: float) -> RankMemory:
    """Every GPU holds everything; gradients are views of the buckets that are exchanged."""
    return RankMemory(
        estimate.weights, estimate.gradients, estimate.optimizer, 0.0, estimate.activations, recomputed
    )


def under_fsdp(estimate: MemoryEstimate, recomputed: float, ranks: int, blocks: BlockBytes) -> RankMemory:
    """Every GPU holds its share of weights, gradients and moments (ZeRO stage 3: Rajbhandari et al.,
    arXiv 1910.02054). The block that is computed and the next one are gathered in fp32, with the gradient of
    one, and what is in no block stays whole."""
    if ranks == 1:
        return under_ddp(estimate, recomputed)
    gathered = 3 * blocks.largest + 2 * blocks.outside
    return RankMemory(
        estimate.weights / ranks,
        estimate.gradients / ranks,
        estimate.optimizer / ranks,
        gathered,
        estimate.activations,
        recomputed,
    )
