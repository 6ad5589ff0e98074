"""What the training loop may ask of a module beyond `forward`."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Shaped
from torch import Tensor, nn


class ParamOverride(NamedTuple):
    """How the optimiser treats one parameter; a module names its own in `optim_overrides()`.

    `lr_scale` multiplies the learning rate. `weight_decay` True or False overrides the rule that only
    tensors of two or more dimensions decay; None keeps the rule.
    """

    lr_scale: float = 1.0
    weight_decay: bool | None = None


@runtime_checkable
class Gathers(Protocol):
    """A module with parts that may be gathered one at a time where each rank holds a share of the weights.

    A part's parameters are then whole only while its own forward runs (called as a module, so that hooks see
    it) and while the backward passes it. What is read from outside, such as a norm that a fusion applies, is
    no such part.
    """

    def gathered_parts(self) -> list[nn.Module]:
        """Parts of this module, or the module itself; none within another."""


@runtime_checkable
class Target(Protocol):
    """What is to be predicted: an `nn.Module` from images to a target and, where it has an opinion on what
    to hide, a score for each patch. Some offer more, such as `to_pixels`."""

    @property
    def width(self) -> int:
        """K: numbers in a patch, or ids to choose from."""

    def __call__(
        self, images: Shaped[Tensor, "B C H W"]
    ) -> tuple[Shaped[Tensor, "B N *K"], Float[Tensor, "B N"] | None]:
        """Targets of all patches, and scores."""

    def after_step(self, step: int) -> None:
        """What moves with training moves here."""
