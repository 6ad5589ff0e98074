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
    check_ranges,
)

_ADAMW = read_if("kind", "adamw")
_LARS = read_if("kind", "lars")
_MULTISTEP = read_if("schedule", "multistep")


@dataclass(frozen=True)
class OptimOptions:
    """The optimiser and its schedule."""

    kind: Literal["adamw", "lars"] = "adamw"
    """adamw, or lars: SGD with momentum whose matrices move in proportion to their norm (MAE's linear
    probe)."""

    base_lr: Annotated[float, NOT_NEGATIVE] = 1.5e-4
    """Learning rate for a global batch of 256 images; the rate used is base_lr x batch_size / 256."""

    betas: Annotated[tuple[float, float], SHARE_BELOW_1, _ADAMW] = (0.9, 0.95)
    """AdamW's decay rates of the first and the second moment."""

    eps: Annotated[float, POSITIVE, _ADAMW] = 1e-8
    """AdamW's epsilon."""

    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.05
    """Weight decay (AdamW: decoupled); 1-d parameters and biases are left out, as in MAE."""

    decay_tokens: bool = True
    """Whether class tokens, positions and the like decay too: in MAE's pre-training they do, being 3-d, in
    fine-tuning they do not."""

    layer_decay: Annotated[float | None, SHARE_ABOVE_0] = None
    """Rate of a layer over that of the one above it, in tasks that number their layers (fine-tuning)."""

    momentum: Annotated[float, SHARE_BELOW_1, _LARS] = 0.9
    """For lars."""

    trust: Annotated[float, POSITIVE, _LARS] = 0.001
    """For lars: a step of a matrix over its norm, at rate 1 without momentum."""

    min_lr: Annotated[float, NOT_NEGATIVE, read_if("schedule", "cosine", "poly")] = 0.0
    """Where the cosine ends (an absolute rate, not scaled by the batch)."""

    warmup_epochs: Annotated[float, NOT_NEGATIVE, read_if("warmup_steps", None)] = 40.0
    """Epochs in which the rate rises from 0, step by step."""

    warmup_steps: Annotated[int | None, NOT_NEGATIVE] = None
    """Length of the warm-up in steps, in place of epochs."""

    schedule: Literal["cosine", "multistep", "poly"] = "cosine"
    """After the warm-up: half a cosine down to min_lr (MAE), drops at the milestones (SimMIM, ViTDet), or a
    power of what is left of the run (segmentation)."""

    power: Annotated[float, POSITIVE, read_if("schedule", "poly")] = 1.0
    """For poly."""

    milestones: Annotated[tuple[float, ...], SHARE, _MULTISTEP] = (0.875,)
    """For multistep: where the rate drops, as fractions of the whole run."""

    milestone_factor: Annotated[float, SHARE_ABOVE_0, _MULTISTEP] = 0.1
    """For multistep: what the rate is multiplied by at each milestone."""

    clip_grad: Annotated[float | None, POSITIVE] = None
    """Largest norm of the gradient of the global batch; None: no clipping."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
