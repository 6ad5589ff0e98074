"""How much memory a training step needs, counted without computing anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lamina.core.batch import Batch
from lamina.plan.on_meta import GpuMode
from lamina.recipes.build import compose_task
from lamina.recipes.recipe import Recipe

MOMENTS = {"adamw": 2, "lars": 1}
"""How many numbers an optimiser keeps for each parameter."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step on one rank."""

    parameters: int
    """Number of parameters that are trained."""
    weights: int
    """Weights and buffers, in fp32 whatever the precision."""
    gradients: int
    optimizer: int
    """The moments of the optimiser."""
    activations: int
    """What the forward keeps for the backward pass; in mixed precision copies of the weights too."""

    @property
    def training(self) -> int:
        """Gradients and optimiser state."""
        return self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of it, without temporaries and what the allocator keeps."""
        return self.weights + self.training + self.activations


def estimate_memory(recipe: Recipe, micro_batch_size: int) -> MemoryEstimate:
    """Memory of a resolved recipe's training step in its precision, see `count_memory`."""
    with torch.device("meta"):
        task, batch = meta_step(recipe, micro_batch_size)
        return count_memory(task, batch, recipe.train.precision, recipe.optim.kind)


def meta_step(recipe: Recipe, images: int) -> tuple[nn.Module, Batch]:
    """What a resolved recipe trains and a batch for it; called under `torch.device("meta")`. The batch has
    masks, as that of a loader does: some are drawn by their content, which is not there."""
    task = compose_task(recipe).train()
    height, width = recipe.encoder.image_size  # type: ignore[misc]  # resolved
    pixels = torch.empty(images, recipe.encoder.in_chans, height, width)
    keys = torch.empty(images, dtype=torch.int64)
    patches = height * width // (recipe.encoder.patch_size or 1) ** 2
    mask = None if recipe.method == "supervised" else torch.empty(images, patches, dtype=torch.bool)
    view = pixels if recipe.method == "cmae" else None
    several = torch.empty(images, len(recipe.labels.classes), dtype=torch.bool)
    return task, Batch(pixels, keys, mask=mask, labels=keys, view=view, multi_labels=several)


def count_memory(
    task: nn.Module, batch: Batch, precision: str = "fp32", optimizer: str = "adamw"
) -> MemoryEstimate:
    """Count weights, gradients, the optimiser's moments and saved activations of a step of any task.

    Task and batch are on torch's "meta" device, where tensors have shapes but no content, and what the
    forward makes must be too (`with torch.device("meta")`). Attention is counted as the fused kernels of
    torch compute it, which keep no attention matrix.
    """
    with GpuMode(precision):
        saved = saved_bytes(task, batch)
    trained = [p for p in task.parameters() if p.requires_grad]
    bytes_trained = sum(p.nbytes for p in trained)
    weights = sum(t.nbytes for t in [*task.parameters(), *task.buffers()])
    moments = MOMENTS[optimizer] * bytes_trained
    return MemoryEstimate(sum(p.numel() for p in trained), weights, bytes_trained, moments, saved)


def saved_bytes(task: nn.Module, batch: Batch) -> int:
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
