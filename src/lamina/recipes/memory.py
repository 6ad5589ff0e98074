"""How much memory a training step needs, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lamina.core.batch import Batch
from lamina.recipes.build import compose_task
from lamina.recipes.recipe import Recipe

MOMENTS = 2  # AdamW keeps two numbers for each parameter


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step on one rank, in fp32."""

    parameters: int
    """Number of parameters that are trained."""
    weights: int
    """Weights and buffers."""
    training: int
    """Gradients and optimiser state."""
    activations: int
    """What the forward keeps for the backward pass."""

    @property
    def total(self) -> int:
        """All of it, without temporaries and what the allocator keeps."""
        return self.weights + self.training + self.activations


def estimate_memory(recipe: Recipe, micro_batch_size: int) -> MemoryEstimate:
    """Memory of a resolved recipe's training step, see `count_memory`."""
    with torch.device("meta"):
        task = compose_task(recipe).train()
        height, width = recipe.encoder.image_size  # type: ignore[misc]
        images = torch.empty(micro_batch_size, recipe.encoder.in_chans, height, width)
        keys = torch.empty(micro_batch_size, dtype=torch.int64)
        view = images if recipe.method == "cmae" else None
        return count_memory(task, Batch(images, keys, labels=keys, view=view))


def count_memory(task: nn.Module, batch: Batch) -> MemoryEstimate:
    """Count weights, gradients, AdamW's moments and saved activations of a step of any task.

    Task and batch are on torch's "meta" device, where tensors have shapes but no content, and what the
    forward makes must be too (`with torch.device("meta")`). Attention there keeps its matrix; fused attention
    on a device does not, so the estimate is on the safe side.
    """
    saved = _saved_bytes(task, batch)
    trained = sum(p.numel() for p in task.parameters() if p.requires_grad)
    weights = sum(t.nbytes for t in [*task.parameters(), *task.buffers()])
    return MemoryEstimate(trained, weights, 4 * trained * (1 + MOMENTS), saved)


def _saved_bytes(task: nn.Module, batch: Batch) -> int:
    """Bytes of the tensors that autograd keeps from one forward, each storage once, parameters aside."""
    own = {t.untyped_storage()._cdata for t in [*task.parameters(), *task.buffers(), batch.images]}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor  # held, so that no storage is freed and its address used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task(batch)
    return sum(t.untyped_storage().nbytes() for t in kept.values())
