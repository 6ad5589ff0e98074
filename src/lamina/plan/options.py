"""What of a recipe may follow from the images, the machine and a time budget."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from lamina.core.errors import LaminaError


@dataclass(frozen=True)
class Fitting:
    """What of a recipe may follow from the images, the machine and a time budget."""

    given: frozenset[str] = frozenset()
    """Dotted names of the fields that somebody has set; they are never changed."""
    choose: bool = False
    """Whether the other fields are chosen (`lamina.plan.choose`)."""
    seconds: float | None = None
    """Wall-clock time that the run is to take, in place of a number of epochs or steps."""

    def __post_init__(self) -> None:
        """Refuse two lengths."""
        if self.seconds is None:
            return
        if both := sorted({"train.epochs", "train.max_steps"} & self.given):
            raise LaminaError(
                f"a time budget sets the length of the run, and so does {both[0]}; leave one of them out"
            )


def fitting_of(given: Collection[str], recipe: object, init: object, seconds: float | None) -> Fitting:
    """What is left to follow from the data, where those fields are given, and perhaps a recipe, weights to
    start from and a time budget; None where they are not. Weights decide the network, so that it is not
    chosen."""
    of_weights = () if init is None else ("encoder.name",)
    return Fitting(frozenset((*given, *of_weights)), recipe is None, seconds)


AS_GIVEN = Fitting()
"""Nothing is changed."""
