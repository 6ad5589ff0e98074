"""What would refuse a training, or is worth a sentence, found out before it starts."""

from __future__ import annotations

import torch
from torch import nn

from lamina.train.distributed import choose_device
from lamina.train.optim import build_optimizer
from lamina.train.optim_options import OptimOptions
from lamina.train.options import Plan, TrainOptions
from lamina.train.precision import precision_warning
from lamina.train.schedule import warmup_warning


def check_training(task: nn.Module, optim: OptimOptions, options: TrainOptions, plan: Plan) -> list[str]:
    """What `fit` would warn of; nothing is computed, and `task` may be on torch's "meta" device.

    Raises:
        LaminaError: for a device or an optimiser that `fit` would refuse.
    """
    device = choose_device(options.device)
    build_optimizer(task, optim)
    return training_warnings(device, optim, options, plan)


def training_warnings(
    device: torch.device, optim: OptimOptions, options: TrainOptions, plan: Plan
) -> list[str]:
    """Sentences on arithmetic that is slow on this device, and on a warm-up that outlasts the run."""
    found = (
        precision_warning(device, options.precision),
        warmup_warning(optim, plan.total_steps, plan.steps_per_epoch),
    )
    return [line for line in found if line]
