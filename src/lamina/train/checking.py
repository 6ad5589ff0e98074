"""What would refuse a training, or is worth a sentence, found out before it starts."""

from __future__ import annotations

from torch import nn

from lamina.train.distributed import Ranks, choose_device, local_world
from lamina.train.optim import build_optimizer
from lamina.train.optim_options import OptimOptions
from lamina.train.options import Plan, TrainOptions
from lamina.train.precision import precision_warning, tf32_warning
from lamina.train.schedule import warmup_warning
from lamina.train.sharding import check_sharding

ONE_RANK = (
    "train.shard fsdp has no effect with one process, which holds all weights: start several by torchrun"
)


def check_training(task: nn.Module, optim: OptimOptions, options: TrainOptions, plan: Plan) -> list[str]:
    """What `fit` would warn of; nothing is computed, and `task` may be on torch's "meta" device.

    Raises:
        LaminaError: for a device, an optimiser or shares of weights that `fit` would refuse.
    """
    ranks = Ranks(0, local_world(), choose_device(options.device))
    check_sharding(task, optim, options)
    build_optimizer(task, optim)
    return training_warnings(ranks, optim, options, plan)


def training_warnings(ranks: Ranks, optim: OptimOptions, options: TrainOptions, plan: Plan) -> list[str]:
    """Sentences on arithmetic that is slow on this device, on options without effect, and on a warm-up that
    outlasts the run."""
    found = (
        precision_warning(ranks.device, options.precision),
        tf32_warning(ranks.device, options),
        ONE_RANK if options.shard != "none" and ranks.world == 1 else None,
        warmup_warning(optim, plan.total_steps, plan.steps_per_epoch),
    )
    return [line for line in found if line]
