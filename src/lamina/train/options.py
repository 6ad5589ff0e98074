"""The options of a training: its length, arithmetic, logs and checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, check_ranges

Precision = Literal["fp32", "bf16", "fp16"]
Shard = Literal["none", "fsdp"]


@dataclass(frozen=True)
class TrainOptions:
    """Length, arithmetic, logs and checkpoints of a training."""

    epochs: Annotated[float, POSITIVE, read_if("max_steps", None)] = 100.0
    """Length of the training in passes over the images; a fraction such as 0.5 is fine."""

    max_steps: Annotated[int | None, COUNT] = None
    """Length of the training in optimiser steps, in place of epochs. The learning rate schedule spans it."""

    batch_size: Annotated[int, COUNT] = 256
    """Number of images in each optimiser step, over all processes and micro-batches together."""

    micro_batch_size: Annotated[int | None, COUNT] = None
    """Number of images in one forward pass of one process. Unset: all of its share of the batch, halved until
    it fits into the GPU's memory (with train.shard fsdp it is not halved)."""

    precision: Precision = "fp32"
    """Arithmetic of the forward pass: fp32, or mixed precision with bf16 or with scaled fp16."""

    tf32: bool = True
    """On an NVIDIA GPU (Ampere or newer) multiply fp32 matrices in TF32, which has 10 bits of mantissa in
    place of 23 and is several times faster. False: in full fp32. It changes no step on other devices,
    nor with bf16 or fp16."""

    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1 or mps."""

    shard: Shard = "none"
    """How several processes hold the weights: none, each holds all of them and the whole state of the
    optimiser (DistributedDataParallel), or fsdp, each holds a share of both (FSDP2), for a model that one
    GPU's memory does not hold otherwise. With fsdp the micro-batch is not halved where a GPU runs out of
    memory: give train.micro_batch_size. `lamina evaluate segment` and `detect` refuse fsdp."""

    compile: bool = False
    """Compile the forward pass with torch.compile: the first step is slow, the others are faster on GPUs."""

    seed: Annotated[int, SEED] = 0
    """Random seed for weights, data order, crops, masks and drop path."""

    log_every_steps: Annotated[int, COUNT] = 20
    """Number of steps that one row of metrics.jsonl averages over."""

    checkpoint_every_steps: Annotated[int | None, COUNT] = None
    """Also save a checkpoint every N steps. Unset: by time alone."""

    checkpoint_every_seconds: Annotated[float | None, POSITIVE] = 900.0
    """Save a checkpoint every so many seconds. Unset: by steps alone. The end of a run is always saved."""

    checkpoint_async: bool = True
    """Write checkpoints in a thread of its own: training waits only until weights and optimiser state are
    copied, which needs main memory for one more copy of both. False: training waits until all is written.
    With train.shard fsdp the first process alone needs it, with room for two copies of the state."""

    keep_checkpoints: Annotated[int, COUNT] = 2
    """Number of good checkpoints to keep; older ones are removed once a new one is verified. Only the next
    step shows whether the newest is good, so with 1 the one before it is kept too. While the loss is not
    finite, or more than 10 times that of the first step, the newest checkpoint from before is also kept."""

    nonfinite_limit: Annotated[int, NOT_NEGATIVE] = 20
    """Stop once more than this many steps, or more than half of all steps, had a loss or gradient that is not
    finite."""

    tensorboard: bool = False
    """Also write TensorBoard events beside metrics.jsonl; this needs the extra lamina[track]."""

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
