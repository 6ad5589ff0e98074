"""Weights in shares: each rank keeps a part of every parameter and of its optimiser's state (FSDP2).

torch's `fully_shard` gathers the parameters of a part of the network just before its forward and its
backward, and lets them go afterwards; gradients are averaged and cut into shares in one exchange. What is
trained is what DistributedDataParallel trains, up to rounding. (Zhao et al., arXiv 2304.11277; ZeRO stage 3:
Rajbhandari et al., arXiv 1910.02054.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lamina.core.errors import LaminaError
from lamina.core.frozen import Frozen
from lamina.core.interfaces import Gathers
from lamina.train.distributed import Ranks
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions


def check_sharding(task: nn.Module, optim: OptimOptions, options: TrainOptions) -> None:
    """Raise `LaminaError` where a training cannot keep its weights in shares, though it is asked to."""
    if options.shard == "none":
        return
    if options.precision == "fp16":
        raise LaminaError(
            "train.shard fsdp does not work with fp16, whose loss scale each rank would find by itself; take "
            "precision bf16, or train.shard none"
        )
    if options.compile:
        raise LaminaError("train.shard fsdp does not work with train.compile; leave one of them out")
    if optim.kind != "adamw":
        raise LaminaError(
            f"train.shard fsdp does not work with the optimiser {optim.kind}, which needs norms of whole "
            "parameters; take train.shard none"
        )
    for name, parameter in task.named_parameters():
        if parameter.ndim == 0:
            raise LaminaError(
                f"train.shard fsdp cannot cut the parameter {name!r}, which is a single number; give it the "
                "shape (1,), or take train.shard none"
            )


@contextmanager
def views_expected(options: TrainOptions) -> Iterator[None]:
    """While this lasts, torch does not warn of parts that return views of tensors: with weights in shares,
    changing such a view in place would lose a hook, and nothing here does that."""
    if options.shard == "none":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
        yield


def shard(task: nn.Module, ranks: Ranks) -> None:
    """Cut the parameters of a module, those of rank 0, into a share for each rank, in place.

    Each of `units` is gathered by itself, all else together. Parameters of frozen networks (`Frozen`) and
    buffers stay whole. Weights are gathered and gradients averaged in float32 whatever the precision:
    autocast rounds within the forward, as it does without shares.
    """
    _copy_from_main(task)
    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for unit in units(task):
        fully_shard(unit, mesh=mesh)
    fully_shard(task, mesh=mesh, ignored_params=frozen_parameters(task))


def units(task: nn.Module) -> list[nn.Module]:
    """The parts of a module that are gathered one at a time (`Gathers`), but those of frozen networks."""
    frozen = {part for outer in task.modules() if isinstance(outer, Frozen) for part in outer.modules()}
    parts = (part for part in task.modules() if isinstance(part, Gathers) and part not in frozen)
    return [unit for part in parts for unit in part.gathered_parts()]


def frozen_parameters(task: nn.Module) -> set[nn.Parameter]:
    """The parameters of frozen networks within a module."""
    return {p for part in task.modules() if isinstance(part, Frozen) for p in part.parameters()}


@torch.no_grad()
def _copy_from_main(task: nn.Module) -> None:
    """Give each rank rank 0's parameters and buffers."""
    for tensor in (*task.parameters(), *task.buffers()):
        whole = tensor.contiguous()
        dist.broadcast(whole, src=0)
        tensor.copy_(whole)
