"""The learning rate of each step."""

from __future__ import annotations

import math

from lamina.train.optim_options import OptimOptions


def learning_rate(
    step: int, *, total_steps: int, steps_per_epoch: float, batch_size: int, options: OptimOptions
) -> float:
    """The learning rate of step `step` (0 is the first), before any parameter's own scale.

    MAE's `lr_sched.py`, iteration by iteration: lr x epoch / warmup_epochs while warming up (so the very
    first step has rate 0), then half a cosine from lr to min_lr over the rest. A polynomial spans the whole
    run, and the warm-up multiplies it, as in mmsegmentation. `batch_size` is global.
    """
    peak = options.base_lr * batch_size / 256
    epoch, epochs, warmup = step / steps_per_epoch, total_steps / steps_per_epoch, options.warmup_epochs
    if options.warmup_steps is not None:
        warmup = options.warmup_steps / steps_per_epoch
    risen = min(1.0, epoch / warmup) if warmup > 0 else 1.0
    if options.schedule == "poly":
        left = (1 - step / total_steps) ** options.power
        return float(risen * (options.min_lr + (peak - options.min_lr) * left))
    if epoch < warmup:
        return peak * risen
    if options.schedule == "multistep":
        passed = sum(step >= fraction * total_steps for fraction in options.milestones)
        return float(peak * options.milestone_factor**passed)
    cosine = 0.5 * (1.0 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
    return options.min_lr + (peak - options.min_lr) * cosine


def warmup_warning(options: OptimOptions, total_steps: int, steps_per_epoch: float) -> str | None:
    """A sentence for the user where a run ends before its warm-up does, or no step of it moves a weight."""
    if options.base_lr == 0 and options.min_lr == 0:
        return "nothing is trained: optim.base_lr is 0"
    steps = options.warmup_steps
    if steps is None:
        steps = math.ceil(options.warmup_epochs * steps_per_epoch)
    if steps < total_steps:
        return None
    if total_steps == 1 and steps > 0:
        return (
            "nothing is trained: the only step is the first of the warm-up, whose learning rate is 0; give "
            "more steps, or --optim.warmup-epochs 0 (with warmup_steps: --optim.warmup-steps 0)"
        )
    return f"the warm-up of {steps} steps outlasts the run of {total_steps}: its rate only rises"
