"""How far a prediction is from its target, for each predicted patch."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def mse(prediction: Float[Tensor, "B m K"], target: Float[Tensor, "B m K"]) -> Float[Tensor, "B m"]:
    """Mean squared difference over a patch (MAE)."""
    return (prediction - target).square().mean(-1)


def l1(prediction: Float[Tensor, "B m K"], target: Float[Tensor, "B m K"]) -> Float[Tensor, "B m"]:
    """Mean absolute difference over a patch (SimMIM)."""
    return (prediction - target).abs().mean(-1)


def cosine(prediction: Float[Tensor, "B m K"], target: Float[Tensor, "B m K"]) -> Float[Tensor, "B m"]:
    """2 - 2 cos of the angle between prediction and target: the squared distance of the two brought to
    length one (EVA, arXiv 2211.07636; MILAN, arXiv 2208.06049). In float32 or wider, under autocast too."""
    return 2 - 2 * F.cosine_similarity(_wide(prediction), _wide(target), dim=-1)


def cross_entropy(prediction: Float[Tensor, "B m K"], target: Int64[Tensor, "B m"]) -> Float[Tensor, "B m"]:
    """Minus the log-probability, in nats, of the target's token id among K (BEiT, arXiv 2106.08254).
    In float32 or wider, under autocast too."""
    logits = _wide(prediction).flatten(0, 1)
    return F.cross_entropy(logits, target.flatten(), reduction="none").reshape(target.shape)


def build_loss(name: str) -> Loss:
    """The loss of that name."""
    return {"mse": mse, "l1": l1, "cosine": cosine, "cross_entropy": cross_entropy}[name]


def _wide(values: Tensor) -> Tensor:
    return values if values.element_size() >= 4 else values.float()
