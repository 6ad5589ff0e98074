"""Where a training of a protocol is, how it goes on, and what any recipe of one says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

from lamina.core.ranges import NOT_NEGATIVE, SEED, check_ranges
from lamina.data.options import LoadingOptions
from lamina.train.options import TrainOptions

Trained = Literal["linear-mae", "attentive", "finetune"]


class TrainingRecipe(Protocol):
    """What a recipe says of any training; it is a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> LoadingOptions: ...

    @property
    def train(self) -> TrainOptions: ...


@dataclass(frozen=True)
class Going:
    """How a training goes on, where it is and with what it computes; the numbers depend on the seed alone."""

    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/PROTOCOL-DATA-seedS for a run."""
    resume: bool = False
    """Go on with what is in the folder (or start it)."""
    overwrite: bool = False
    """Replace what is in the folder."""
    seed: Annotated[int, SEED] = 0
    """Of weights, order, crops, mixing and drop path."""
    device: str | None = None
    """auto, cpu, cuda, ...; unset means the recipe's."""
    workers: Annotated[int | None, NOT_NEGATIVE] = None
    """Processes that read images; unset means the recipe's."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
