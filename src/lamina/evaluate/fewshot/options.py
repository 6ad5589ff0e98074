"""How few labels, and what learns from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, SHARE_ABOVE_0, check_ranges

Classifier = Literal["linear", "knn", "finetune"]


@dataclass(frozen=True)
class FewOptions:
    """How few labels, how often they are drawn, and what learns from them."""

    classifier: Classifier = "linear"
    """linear or knn on frozen features, or finetune."""
    per_class: Annotated[tuple[int, ...], COUNT] = (1, 2, 5, 10)
    """Images of each class."""
    shares: Annotated[tuple[float, ...], SHARE_ABOVE_0] = ()
    """Shares of the training images, such as 0.01 0.1: as many of each class as make that share of all."""
    lists: tuple[Path, ...] = ()
    """Official lists: text files that name the images, one on each line."""
    draws: Annotated[int, COUNT] = 5
    """Draws of each amount; a list is one by itself."""
    pool: Literal["cls", "mean"] = "mean"
    """For linear and knn: what of the last layer is read."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if not (self.per_class or self.shares or self.lists):
            raise LaminaError("few labels need an amount: per_class, shares or lists")
        if twice := [name for name, n in Counter(file.stem for file in self.lists).items() if n > 1]:
            raise LaminaError(f"two lists are called {twice[0]}, as their scores would be; rename one")
