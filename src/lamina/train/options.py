"""How long a run is, how it computes, when it speaks and when it saves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, check_ranges


@dataclass(frozen=True)
class TrainOptions:
    """The run itself."""

    epochs: Annotated[float, POSITIVE, read_if("max_steps", None)] = 100.0
    """Length of the run in passes over the data; may be a fraction."""

    max_steps: Annotated[int | None, COUNT] = None
    """Length of the run in optimiser steps, in place of epochs; the schedule spans it."""

    batch_size: Annotated[int, COUNT] = 256
    """Images per optimiser step, over all ranks and micro-batches."""

    micro_batch_size: Annotated[int | None, COUNT] = None
    """Images per forward on one rank; None: all of its share, halved until it fits into the GPU's memory."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward: fp32, or mixed with bfloat16, or mixed with scaled float16."""

    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1, mps."""

    compile: bool = False
    """Compile the forward with torch.compile: a slow first step, then faster on GPUs."""

    seed: Annotated[int, SEED] = 0
    """Seed of drop path and dropout; the data has the same seed through its loader."""

    log_every_steps: Annotated[int, COUNT] = 20
    """Steps per row of metrics.jsonl; a row holds means over its steps."""

    checkpoint_every_steps: Annotated[int | None, COUNT] = None
    """Save a checkpoint every so many steps; None: by time alone."""

    checkpoint_every_seconds: Annotated[float | None, POSITIVE] = 900.0
    """Save a checkpoint after so many seconds; None: by steps alone. The end of the run is always saved."""

    keep_checkpoints: Annotated[int, COUNT] = 2
    """How many good checkpoints to keep; older ones are removed once a new one is verified. Whether the
    newest is of use shows only in the next step, so with 1 the one before it is kept too. While the loss is
    more than 10 times that of the first step, or not finite, the newest checkpoint from before is kept."""

    nonfinite_limit: Annotated[int, NOT_NEGATIVE] = 20
    """Stop the run once more than this many steps, or more than half of all its steps, had a loss or gradient
    that is not finite."""

    tensorboard: bool = False
    """Write TensorBoard events beside metrics.jsonl (needs lamina[track])."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Plan:
    """The length of a run, worked out."""

    total_steps: int
    steps_per_epoch: float
    batch_size: int
    n_samples: int

    def epoch(self, steps: int) -> float:
        """Passes over the data after `steps` steps."""
        return steps * self.batch_size / self.n_samples


def plan_run(options: TrainOptions, n_samples: int) -> Plan:
    """Steps of a run over `n_samples` images; raises `LaminaError` on options that make no run."""
    if n_samples < 1:
        raise LaminaError("there is no image to train on")
    steps = options.max_steps
    if steps is None:
        steps = math.ceil(round(options.epochs * n_samples / options.batch_size, 9))
    if steps < 1:
        raise LaminaError(f"a run of {options.epochs} epochs has no step; choose more epochs, or max_steps")
    return Plan(steps, n_samples / options.batch_size, options.batch_size, n_samples)
