"""AdamW, its parameter groups, and the learning rate of each step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.errors import LaminaError
from lamina.protocols import ParamOverride


@dataclass(frozen=True)
class OptimOptions:
    """AdamW and its schedule."""

    base_lr: float = 1.5e-4
    """Learning rate for a global batch of 256 images; the rate used is base_lr x batch_size / 256."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and the second moment."""

    eps: float = 1e-8
    """AdamW's epsilon."""

    weight_decay: float = 0.05
    """Decoupled weight decay; 1-d parameters and biases are left out, as in MAE."""

    min_lr: float = 0.0
    """Where the cosine ends (an absolute rate, not scaled by the batch)."""

    warmup_epochs: float = 40.0
    """Epochs in which the rate rises from 0, step by step."""

    schedule: Literal["cosine", "multistep"] = "cosine"
    """After the warm-up: half a cosine down to min_lr (MAE), or drops at the milestones (SimMIM)."""

    milestones: tuple[float, ...] = (0.875,)
    """For multistep: where the rate drops, as fractions of the whole run."""

    milestone_factor: float = 0.1
    """For multistep: what the rate is multiplied by at each milestone."""

    clip_grad: float | None = None
    """Largest norm of the gradient of the global batch; None: no clipping."""


def learning_rate(
    step: int, *, total_steps: int, steps_per_epoch: float, batch_size: int, options: OptimOptions
) -> float:
    """The learning rate of step `step` (0 is the first), before any parameter's own scale.

    MAE's `lr_sched.py`, iteration by iteration: lr x epoch / warmup_epochs while warming up (so the very
    first step has rate 0), then half a cosine from lr to min_lr over the rest. `batch_size` is global.
    """
    peak = options.base_lr * batch_size / 256
    epoch, epochs, warmup = step / steps_per_epoch, total_steps / steps_per_epoch, options.warmup_epochs
    if epoch < warmup:
        return peak * epoch / warmup
    if options.schedule == "multistep":
        passed = sum(step >= fraction * total_steps for fraction in options.milestones)
        return float(peak * options.milestone_factor**passed)
    cosine = 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
    return options.min_lr + (peak - options.min_lr) * cosine


def warmup_warning(options: OptimOptions, epochs: float) -> str | None:
    """A sentence for the user where a run of `epochs` ends before its warm-up does."""
    if options.warmup_epochs < epochs:
        return None
    return (
        f"the warm-up of {options.warmup_epochs:g} epochs outlasts the run of {epochs:g}: its rate only rises"
    )


def param_groups(
    module: nn.Module, weight_decay: float, lr_scales: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """AdamW's groups: one per (lr_scale, weight_decay), in the order in which the parameters appear.

    Each trainable parameter is in exactly one group. `optim_overrides()` of a module speaks for its direct
    parameters; `lr_scales` adds a factor by full parameter name (layer decay). A group carries its
    `lr_scale`, which `set_learning_rate` applies, and the `names` of its parameters.
    """
    overrides = _overrides(module)
    trainable = {name: p for name, p in module.named_parameters() if p.requires_grad}
    unknown = sorted(set(lr_scales or {}) - set(trainable))
    if unknown:
        raise LaminaError(f"learning-rate scale for {unknown[0]!r}, which is no trainable parameter")
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in trainable.items():
        override = overrides.get(name, ParamOverride())
        decays = override.weight_decay
        if decays is None:
            decays = parameter.ndim > 1 and not name.endswith(".bias")
        scale = override.lr_scale * (lr_scales or {}).get(name, 1.0)
        key = (scale, weight_decay if decays else 0.0)
        fresh = {"params": [], "names": [], "lr_scale": scale, "weight_decay": key[1]}
        group = groups.setdefault(key, fresh)
        group["params"].append(parameter)
        group["names"].append(name)
    check_cover(module, list(groups.values()))
    return list(groups.values())


def _overrides(module: nn.Module) -> dict[str, ParamOverride]:
    """Full parameter name -> override, gathered from every module that defines `optim_overrides`."""
    found: dict[str, ParamOverride] = {}
    for prefix, part in module.named_modules():
        asked = getattr(part, "optim_overrides", None)
        if asked is None:
            continue
        own = dict(part.named_parameters(recurse=False))
        for name, override in asked().items():
            if name not in own:
                raise LaminaError(
                    f"{type(part).__name__}.optim_overrides names {name!r}, not one of its parameters"
                )
            found[f"{prefix}.{name}" if prefix else name] = override
    return found


def check_cover(module: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Raise where the groups leave out a trainable parameter, or hold one twice or one that is frozen."""
    held = Counter(id(p) for group in groups for p in group["params"])
    for name, parameter in module.named_parameters():
        if held.pop(id(parameter), 0) != int(parameter.requires_grad):
            raise LaminaError(
                f"the optimiser's groups must hold the parameter {name!r} once if it is trained"
            )
    if held:
        raise LaminaError("the optimiser's groups hold a parameter that is not the module's own")


def build_adamw(
    module: nn.Module,
    options: OptimOptions,
    lr_scales: Mapping[str, float] | None = None,
    fused: bool = False,
) -> torch.optim.AdamW:
    """AdamW over all trainable parameters, its moments allocated at once.

    So the first step already needs the memory of every later one, and each state can be saved.
    `fused` (the way on CUDA and CPU) updates all tensors in one call, which is much of a small network's
    step, and lets the device itself decide to skip a step, see `step_unless`.
    """
    groups = param_groups(module, options.weight_decay, lr_scales)
    if not groups:
        raise LaminaError("nothing to train: no parameter requires a gradient")
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=options.betas, eps=options.eps, fused=fused)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu"),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group `lr` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def step_unless(optimizer: torch.optim.Optimizer, skip: Float[Tensor, ""]) -> None:
    """One optimiser step, or, where `skip` is 1, none: weights and moments keep their bytes.

    A fused optimiser reads `found_inf` on the device, so nothing waits. For another one (on MPS) the host
    reads `skip`, which waits for the device at each step.
    """
    if optimizer.defaults.get("fused"):
        setattr(optimizer, "found_inf", skip)  # noqa: B010 (torch's protocol with GradScaler, untyped)
        optimizer.step()
    elif not skip.item():
        optimizer.step()


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
        tensor.copy_(tensors[name])
