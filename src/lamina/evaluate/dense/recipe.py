"""The fields and windows that the recipes of dense protocols have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Protocol, Self, TypeVar

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, check_ranges
from lamina.data.options import DenseDataOptions
from lamina.evaluate.encoder_options import DenseEncoder
from lamina.evaluate.protocol import TrainingRecipe
from lamina.train.optim_options import OptimOptions


@dataclass(frozen=True)
class Windows:
    """Windows of images; what is unset follows from the encoder."""

    size: Annotated[tuple[int, ...] | None, COUNT] = None
    """Side, or height and width, of a window in px. By default the image size of the encoder."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        check_sides("size", self.size)

    def resolved(self, own: tuple[int, int], patch: tuple[int, int]) -> Self:
        """With every size as a number: `own` is the encoder's image size, and a size that is given is
        rounded up to whole patches."""
        size = own if self.size is None else (self.size[0], self.size[-1])
        whole = tuple(-(-side // of) * of for side, of in zip(size, patch, strict=True))
        return replace(self, size=whole)

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of a window, once resolved."""
        assert self.size is not None
        return self.size[0], self.size[-1]


class DenseRecipe(TrainingRecipe, Protocol):
    """A head, how windows are cut and how it is trained. The encoder is the model's."""

    @property
    def name(self) -> str: ...

    @property
    def encoder(self) -> DenseEncoder: ...

    @property
    def data(self) -> DenseDataOptions: ...

    @property
    def window(self) -> Windows: ...

    @property
    def optim(self) -> OptimOptions: ...


R = TypeVar("R", bound=DenseRecipe)


def check_sides(name: str, sides: tuple[int, ...] | None) -> None:
    """Raise where they are neither a side nor a height and a width."""
    if sides is not None and not 1 <= len(sides) <= 2:
        raise LaminaError(f"window.{name} takes a side, or height and width, in px, not {sides}")
