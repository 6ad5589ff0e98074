"""The gradient of a global batch: micro-batch by micro-batch, rank by rank, as if it were one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, seed_for
from lamina.train.distributed import Ranks, add_over_ranks, parallel
from lamina.train.precision import autocast
from lamina.train.rows import CLOCK_FIELDS

RESERVED = CLOCK_FIELDS | {"step", "epoch", "lr", "lr_sum", "grad_norm", "nonfinite", "faults"}


@dataclass(frozen=True)
class Gradients:
    """Forward and backward of a task in the chosen precision, over all ranks."""

    task: nn.Module
    forward: nn.Module
    scaler: torch.amp.GradScaler
    ranks: Ranks
    precision: str
    seed: int

    @staticmethod
    def of(
        task: nn.Module, scaler: torch.amp.GradScaler, ranks: Ranks, precision: str, seed: int, compiled: bool
    ) -> Gradients:
        """Compile the task's forward where asked, and let ranks share its gradients."""
        forward: nn.Module = torch.compile(task) if compiled else task  # type: ignore[assignment]
        return Gradients(task, parallel(forward, ranks), scaler, ranks, precision, seed)

    def backward(self, batch: Batch, step: int, micro_batch_size: int) -> dict[str, Tensor]:
        """Add the gradient of the global batch's mean loss (times the loss scale) to the parameters.

        `batch` is this rank's share. Each micro-batch counts by its number of images, and ranks are
        averaged with the last one, so the sum is that of one large batch. Returns this rank's mean terms.
        """
        means: dict[str, Tensor] = {}
        n_micro = -(-len(batch) // micro_batch_size)
        for micro, part in zip(count(), batch.split(micro_batch_size), strict=False):
            with self._averaging(last=micro + 1 == n_micro):
                terms = self._backward_one(self.forward, part, step, micro, len(part) / len(batch))
            means = {name: means[name] + term if micro else term for name, term in terms.items()}
        return means

    def _backward_one(
        self, forward: nn.Module, part: Batch, step: int, micro: int, share: float
    ) -> dict[str, Tensor]:
        """One micro-batch; drop path and dropout depend on (seed, step, micro-batch, rank) alone."""
        torch.manual_seed(seed_for(self.seed, step, micro, self.ranks.rank, Purpose.DROP_PATH))
        with autocast(self.ranks.device, self.precision):
            terms = forward(part)
        check_terms(terms)
        self.scaler.scale(terms["loss"] * share).backward()
        return {name: at_least_fp32(term.detach()) * share for name, term in terms.items()}

    def _averaging(self, last: bool) -> AbstractContextManager[None]:
        """Ranks exchange gradients with the last micro-batch only."""
        if last or not isinstance(self.forward, DistributedDataParallel):
            return nullcontext()
        return self.forward.no_sync()

    def largest_micro_batch(self, batch: Batch) -> int:
        """The batch's size, halved until forward and backward fit into the memory of every rank's GPU.

        Tried on the bare task, so that a rank that fails leaves no other one waiting for it; gradients are
        dropped and buffers put back.
        """
        size = len(batch)
        while not self._fits(batch, size):
            if size == 1:
                raise LaminaError(
                    "not even one image fits into the GPU's memory; choose a smaller encoder or image"
                )
            size = -(-size // 2)
        return size

    def _fits(self, batch: Batch, size: int) -> bool:
        """Whether two micro-batches fit (the second one finds the gradients of the first in memory)."""
        buffers = {name: b.clone() for name, b in self.task.named_buffers()}
        failed = torch.zeros(1, device=self.ranks.device)
        try:
            for part in next(batch.split(2 * size)).split(size):
                self._backward_one(self.task, part, step=0, micro=0, share=1.0)
        except torch.OutOfMemoryError:
            failed += 1
        self.task.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in self.task.named_buffers():
                buffer.copy_(buffers[name])
        if self.ranks.device.type == "cuda":
            torch.cuda.empty_cache()
        return not add_over_ranks(failed, self.ranks).item()


def check_terms(terms: object) -> None:
    """Raise `LaminaError` unless a task's forward returned {"loss": 0-d tensor, ...other 0-d tensors}."""
    if not isinstance(terms, dict) or "loss" not in terms:
        raise LaminaError('the task\'s forward must return a dict of 0-d tensors with the key "loss"')
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim:
            raise LaminaError(f"the task's term {name!r} is not a 0-d tensor")
        if name in RESERVED:
            raise LaminaError(
                f"the task's term {name!r} has the name of a column of metrics.jsonl; rename it"
            )


def at_least_fp32(value: Tensor) -> Tensor:
    """The value in float32 where it came out of autocast in less."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def after_step_of(task: nn.Module) -> Callable[[int], None]:
    """The task's own method, which `nn.Module`'s type does not know."""
    method = getattr(task, "after_step", None)
    if not callable(method):
        raise LaminaError(f"{type(task).__name__} has no after_step(step); give it one, if only a no-op")
    return method  # type: ignore[no-any-return]
