"""The optimiser: AdamW, or LARS for linear probes; its state by name, and steps that are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from timm.optim.lars import Lars
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.train.optim_options import OptimOptions
from lamina.train.param_groups import layer_scales, param_groups
from lamina.train.shares import share_like


def build_optimizer(module: nn.Module, options: OptimOptions, fused: bool = False) -> torch.optim.Optimizer:
    """The optimiser over all trainable parameters, its state allocated at once.

    So the first step already needs the memory of every later one, and each state can be saved. With
    `layer_decay` the module's `layer_ids()` say which layer each parameter is of. `fused` (the way of AdamW
    on CUDA and CPU) updates all tensors in one call, which is much of a small network's step, and lets the
    device itself decide to skip a step, see `step_unless`.

    Raises:
        LaminaError: where nothing is trained, or layers are to decay and the module has none.
    """
    scales = None if options.layer_decay is None else layer_scales(module, options.layer_decay)
    lars = options.kind == "lars"
    groups = param_groups(module, options.weight_decay, scales, options.decay_tokens, matrices_apart=lars)
    if not groups:
        raise LaminaError("nothing to train: no parameter requires a gradient")
    return _lars(groups, options) if lars else _adamw(groups, options, fused)


def _adamw(groups: list[dict[str, Any]], options: OptimOptions, fused: bool) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.eps, fused=fused)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu"),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    return optimizer


def _lars(groups: list[dict[str, Any]], options: OptimOptions) -> torch.optim.Optimizer:
    """timm's LARS: You, Gitman and Ginsburg, arXiv 1708.03888, as in MAE's `util/lars.py`.

    Matrices adapt whether they decay or not (timm's `always_adapt`: without it nothing would adapt at weight
    decay 0); vectors do not, and without weight decay that is plain momentum.
    """
    for group in groups:
        group["always_adapt"] = group["params"][0].ndim > 1
    optimizer: torch.optim.Optimizer = Lars(
        groups, lr=0.0, momentum=options.momentum, trust_coeff=options.trust
    )
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        optimizer.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group `lr` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def step_unless(optimizer: torch.optim.Optimizer, skip: Float[Tensor, ""]) -> None:
    """One optimiser step, or, where `skip` is 1, none: weights and state keep their bytes.

    Nothing waits for the device: a fused optimiser reads `found_inf` there, and of another one the step is
    taken and, where it was to be skipped, taken back, which holds weights and state twice for a moment.
    """
    if optimizer.defaults.get("fused"):
        setattr(optimizer, "found_inf", skip)  # noqa: B010 (torch's protocol with GradScaler, untyped)
        optimizer.step()
        return
    moving = [p.data for group in optimizer.param_groups for p in group["params"]]
    moving += optimizer_tensors(optimizer).values()
    before = [tensor.clone() for tensor in moving]
    optimizer.step()
    for tensor, old in zip(moving, before, strict=True):
        tensor.copy_(torch.where(skip.to(tensor.device) > 0, old, tensor))


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter name: "<parameter>.exp_avg", ".exp_avg_sq", ".step"."""
    return {
        f"{name}.{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimizer.state[parameter].items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, in place; raises where names do not match."""
    own = optimizer_tensors(optimizer)
    if odd := sorted(set(own) ^ set(tensors)):
        raise LaminaError(
            f"the checkpoint's optimiser state is of another model: {odd[0]!r} is on one side only"
        )
    for name, tensor in own.items():
        tensor.copy_(share_like(tensor, tensors[name]))
