"""The options of few labels: budgets, random subsets and the classifier."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, SHARE_ABOVE_0, check_ranges

Classifier = Literal["linear", "knn", "finetune"]


@dataclass(frozen=True)
class FewshotOptions:
    """Label budgets, the number of random subsets of each, and the classifier that is trained on them."""

    classifier: Classifier = "linear"
    """Classifier that is trained on the labels: linear or knn on frozen features, or finetune, which trains
    the encoder too."""
    per_class: Annotated[tuple[int, ...], COUNT] = (1, 2, 5, 10)
    """Label budgets as a number of images of each class."""
    shares: Annotated[tuple[float, ...], SHARE_ABOVE_0] = ()
    """Label budgets as shares of the training images, such as 0.01 0.1, with equally many of each class."""
    lists: tuple[Path, ...] = ()
    """Label budgets as text files that name the images, one per line, such as the official 1 % of
    ImageNet."""
    draws: Annotated[int, COUNT] = 5
    """Number of random subsets drawn for each budget. A list counts as one subset."""
    pool: Annotated[Literal["cls", "mean"], read_if("classifier", "linear", "knn")] = "mean"
    """Vector of an image for linear and knn: the class token (cls) or the mean of the patch tokens (mean)."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if not (self.per_class or self.shares or self.lists):
            raise LaminaError("there is no label budget; give per_class, shares or lists")
        if twice := [name for name, n in Counter(file.stem for file in self.lists).items() if n > 1]:
            raise LaminaError(f"two lists are called {twice[0]}, as their scores would be; rename one")
