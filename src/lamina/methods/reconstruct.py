"""What a method puts in the place of hidden patches, in pixels."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.frozen import eval_mode
from lamina.mim import MIM
from lamina.targets.missing import MissingTarget


class Filling(NamedTuple):
    """Patches as a method fills them in, on [0, 1] and not clamped; `where` they are, and what was hidden."""

    pixels: Float[Tensor, "B m K"]
    where: Int64[Tensor, "B m"]
    mask: Bool[Tensor, "B N"]


def predicts_pixels(method: MIM) -> bool:
    """Whether a prediction can be shown."""
    return hasattr(method.target, "to_pixels")


def check_pixels(method: MIM, name: str | None = None) -> None:
    """Raise where a method (of that name) predicts something other than pixels."""
    if not predicts_pixels(method):
        target = method.target
        what = target.kind if isinstance(target, MissingTarget) else type(target).__name__
        whose = "the target" if name is None else f"the target of {name}"
        raise LaminaError(
            f"{whose}, {what}, is not made of pixels, so there is no picture to reconstruct; "
            "use a run of mae, pixmim, simmim, crossmae, pixio, residual-decay or cmae"
        )


def fill(method: MIM, batch: Batch) -> Filling:
    """Hide patches and let the method fill them in, in evaluation mode without gradients.

    The prediction is turned back to pixels by the method's own target (`target.to_pixels`): per-patch
    normalisation is undone with the mean and deviation of the true patch, as MAE's figures do. Without
    `batch.mask` the method's masking draws one from `batch.keys`.

    Raises:
        LaminaError: for a target that is not made of pixels.
    """
    check_pixels(method)
    with eval_mode(method):
        made = method.predict(batch)
        to_pixels = method.target.to_pixels  # type: ignore[attr-defined]  # not every target has it
        return Filling(to_pixels(made.values, made.where, batch.images), made.where, made.mask)
