"""How far a prediction is from its target, for each predicted patch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
LossName = Literal["mse", "l1"]


def mse(prediction: Float[Tensor, "B m K"], target: Float[Tensor, "B m K"]) -> Float[Tensor, "B m"]:
    """Mean squared difference over a patch (MAE)."""
    return (prediction - target).square().mean(-1)


def l1(prediction: Float[Tensor, "B m K"], target: Float[Tensor, "B m K"]) -> Float[Tensor, "B m"]:
    """Mean absolute difference over a patch (SimMIM)."""
    return (prediction - target).abs().mean(-1)


def build_loss(name: LossName) -> Loss:
    """The loss of that name."""
    return {"mse": mse, "l1": l1}[name]
