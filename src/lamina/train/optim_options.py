"""What a recipe says of the optimiser and its schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.ranges import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SHARE_ABOVE_0,
    SHARE_BELOW_1,
    RangeChecked,
)

_ADAMW = read_if("kind", "adamw")
_LARS = read_if("kind", "lars")
_MULTISTEP = read_if("schedule", "multistep")


@dataclass(frozen=True)
class OptimOptions(RangeChecked):
    """The optimiser and its schedule."""

    kind: Literal["adamw", "lars"] = "adamw"
    """Optimiser. adamw: AdamW. lars: SGD with momentum whose steps are scaled to the norm of each matrix
    (MAE's linear probe)."""

    base_lr: Annotated[float, NOT_NEGATIVE] = 1.5e-4
    """Learning rate for a batch of 256 images; the rate that is used is base_lr x batch_size / 256."""

    betas: Annotated[tuple[float, float], SHARE_BELOW_1, _ADAMW] = (0.9, 0.95)
    """Decay rates of AdamW's first and second moment."""

    eps: Annotated[float, POSITIVE, _ADAMW] = 1e-8
    """Epsilon that AdamW adds to the root of the second moment, against division by zero."""

    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.05
    """Weight decay, decoupled from the gradient in AdamW. Biases and other 1-d parameters do not decay, as in
    MAE."""

    decay_tokens: bool = True
    """Apply weight decay to class tokens, positions and similar parameters too, as MAE's pre-training does;
    MAE's fine-tuning does not."""

    layer_decay: Annotated[float | None, SHARE_ABOVE_0] = None
    """Learning rate of a layer as a share of that of the layer above it, for fine-tuning. Unset: all layers
    have the same rate."""

    momentum: Annotated[float, SHARE_BELOW_1, _LARS] = 0.9
    """Momentum of LARS."""

    trust: Annotated[float, POSITIVE, _LARS] = 0.001
    """Trust coefficient of LARS: the length of a matrix's step over the matrix's norm, for a learning rate of
    1 and no momentum."""

    min_lr: Annotated[float, NOT_NEGATIVE, read_if("schedule", "cosine", "poly")] = 0.0
    """Learning rate at the end of the cosine or poly schedule; it is not scaled by the batch size."""

    warmup_epochs: Annotated[float, NOT_NEGATIVE, read_if("warmup_steps", None)] = 40.0
    """Number of epochs in which the learning rate rises from 0, step by step."""

    warmup_steps: Annotated[int | None, NOT_NEGATIVE] = None
    """Length of the warm-up in steps, in place of epochs."""

    schedule: Literal["cosine", "multistep", "poly"] = "cosine"
    """Learning rate after the warm-up. cosine: half a cosine down to min_lr (MAE). multistep: drops at the
    milestones (SimMIM, ViTDet). poly: a power of the remaining share of the run (segmentation)."""

    power: Annotated[float, POSITIVE, read_if("schedule", "poly")] = 1.0
    """Exponent of the poly schedule; 1 is a straight line."""

    milestones: Annotated[tuple[float, ...], SHARE, _MULTISTEP] = (0.875,)
    """Where the learning rate of the multistep schedule drops, as shares of the whole run."""

    milestone_factor: Annotated[float, SHARE_ABOVE_0, _MULTISTEP] = 0.1
    """Factor that the learning rate of the multistep schedule is multiplied by at each milestone."""

    clip_grad: Annotated[float | None, POSITIVE] = None
    """Largest norm of the gradient of a whole batch; larger gradients are scaled down to it. Unset: no
    clipping."""
