"""How the ranks of a training hold its weights, and how rank 0 gets them whole."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lamina.train.distributed import Ranks, add_over_ranks
from lamina.train.divergence import module_finite
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions
from lamina.train.sharding import check_sharding, frozen_parameters, shard
from lamina.train.shares import on_host, together


class Layout:
    """Each rank holds all weights of a module, or a share of them (`train.shard fsdp`).

    Measurements, exports and checkpoints are made on rank 0 alone, of a plain module: `task`. Where weights
    are cut that is a copy, with the buffers and frozen networks of the module itself, and without weights
    outside of `whole`.

    Args:
        task: on its device; it is cut in place.

    Raises:
        LaminaError: for a training that cannot hold its weights in shares, though it is asked to.
    """

    def __init__(self, task: nn.Module, ranks: Ranks, optim: OptimOptions, options: TrainOptions) -> None:
        check_sharding(task, optim, options)
        self.cut = options.shard == "fsdp" and ranks.world > 1
        self.task, self._held = task, dict[str, Tensor]()
        self._trained, self._ranks = task, ranks
        if self.cut:
            self.task = _empty_copy(task) if ranks.main else nn.Module()
            shard(task, ranks)

    @contextmanager
    def whole(self, tensors: Mapping[str, Tensor] | None = None) -> Iterator[nn.Module]:
        """`task` with the weights of now, on rank 0, and for `held` the given tensors of an optimiser.

        Where weights are cut every rank enters this, and memory for whole ones (of `tensors` on the host) is
        let go at the end; else nothing is copied and no rank waits for another.
        """
        if self.cut:
            self._gather()
            self._held = on_host(tensors or {}, self._ranks)
        try:
            yield self.task
        finally:
            self._held = {}
            if self.cut:
                _let_go(self.task)

    def held(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """An optimiser's tensors as rank 0 has them whole: where they are cut those that `whole` got."""
        return self._held if self.cut else tensors

    @torch.no_grad()
    def _gather(self) -> None:
        own = dict(self.task.named_parameters())
        for name, parameter in self._trained.named_parameters():
            if isinstance(parameter, DTensor):
                full = together(parameter.detach())
                if self._ranks.main:
                    own[name].data = full
        if self._ranks.main:
            for mine, theirs in zip(self.task.modules(), self._trained.modules(), strict=True):
                mine._buffers.update(theirs._buffers)
                mine.training = theirs.training

    def finite(self) -> bool:
        """Whether all numbers that a checkpoint holds are finite, by the shares of all ranks, which all call
        this."""
        bad = torch.tensor([not module_finite(self._trained)], dtype=torch.int64, device=self._ranks.device)
        return not add_over_ranks(bad, self._ranks).item()


def _empty_copy(task: nn.Module) -> nn.Module:
    """A copy whose parameters, but those of frozen networks, are empty; buffers are shared."""
    shared = {id(tensor): tensor for tensor in (*task.buffers(), *frozen_parameters(task))}
    empty = {id(p): nn.Parameter(_nothing(p), p.requires_grad) for p in task.parameters()}
    return copy.deepcopy(task, {**empty, **shared})


def _let_go(task: nn.Module) -> None:
    """Empty the parameters of such a copy."""
    frozen = frozen_parameters(task)
    for parameter in task.parameters():
        if parameter not in frozen:
            parameter.data = _nothing(parameter)


def _nothing(parameter: Tensor) -> Tensor:
    return torch.empty(0, dtype=parameter.dtype, device=parameter.device)
