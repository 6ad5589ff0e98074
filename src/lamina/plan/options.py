"""What of a recipe may follow from the images, the machine and a time budget."""

from __future__ import annotations

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


AS_GIVEN = Fitting()
"""Nothing is changed."""
