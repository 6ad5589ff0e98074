"""A protocol as a row of `lamina.evaluate.catalog`, and the options that its function takes."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from lamina.core.choices import check_read
from lamina.core.config import did_you_mean, merge
from lamina.core.errors import LaminaError
from lamina.core.ranges import NOT_NEGATIVE, SEED, RangeChecked
from lamina.data.options import LoadingOptions
from lamina.encoder.options import EncoderOptions
from lamina.features.options import ComputeOptions, VectorPool, Wanted
from lamina.train.options import TrainOptions

Trained = Literal["linear-mae", "attentive", "finetune"]
T = TypeVar("T")


class TrainingRecipe(typing.Protocol):
    """The fields that the recipe of any training has; a recipe is a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def data(self) -> LoadingOptions: ...

    @property
    def train(self) -> TrainOptions: ...


R = TypeVar("R", bound=TrainingRecipe)


@dataclass(frozen=True)
class RunOptions(RangeChecked):
    """Folder, seed and device of an evaluation; of these its scores depend on the seed alone."""

    out: Path | None = None
    """Folder of the evaluation; by default RUN/evaluations/PROTOCOL-DATA-seedS for a run."""
    resume: bool = False
    """Continue the evaluation in its folder where it stopped, or start it where there is none."""
    overwrite: bool = False
    """Replace the evaluation in its folder."""
    seed: Annotated[int, SEED] = 0
    """Random seed of weights, order, crops, mixing and drop path. Scores depend on it."""
    device: str | None = None
    """Device to compute on: auto (a GPU where there is one), cpu, cuda, ... Unset: the recipe's (auto)."""
    workers: Annotated[int | None, NOT_NEGATIVE] = None
    """Number of processes that read images; 0: the main process does it. Unset: the recipe's (2)."""

    def compute(self, batch_size: int = ComputeOptions.batch_size) -> ComputeOptions:
        """The options for computing features with this device and these workers."""
        workers = ComputeOptions.workers if self.workers is None else self.workers
        return ComputeOptions(batch_size, workers, self.device or ComputeOptions.device)

    def applied_to(self, recipe: R) -> R:
        """The recipe with this seed, and with this device and these workers where they are set."""
        train = replace(recipe.train, seed=self.seed, device=self.device or recipe.train.device)
        workers = recipe.data.workers if self.workers is None else self.workers
        return replace(recipe, train=train, data=replace(recipe.data, workers=workers))


@dataclass(frozen=True)
class ProtocolOptions:
    """Options that `lamina evaluate all` gives to a protocol; each one reads those that its row names."""

    protocol: str
    """The name of its row."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """`recipe`, the name of the recipe to start from, and the fields that differ from it."""
    encoder: EncoderOptions | None = None
    """The network of a weights file that does not say it."""
    epochs: float | None = None
    """Epochs in place of the recipe's; None: the recipe's."""
    few_per_class: tuple[int, ...] = ()
    """Label budgets as numbers of images of each class."""
    corrupted_images: int | None = None
    """Number of test images to corrupt; None: all."""
    features: tuple[Wanted, ...] = ()
    """Features of the encoder, each in rows of its own."""
    pools: tuple[VectorPool, ...] = ()
    """Vectors of an image, each in a row of its own."""


@dataclass(frozen=True)
class Protocol:
    """A protocol: how models are evaluated on data."""

    name: str
    help: str
    """A short sentence on what it does; the overview of the command line shows it too."""
    run: str
    """The function, as MODULE:NAME. It takes a model, data, `ProtocolOptions`, `RunOptions` and
    `ComputeOptions`, and returns a tuple of `lamina.evaluate.score.Score`."""
    options: tuple[str, ...] = ()
    """The fields of `ProtocolOptions` that it reads."""
    recipe: str = ""
    """Where it has recipes, the function that makes one of the protocol's name and fields, as MODULE:NAME."""
    labels: Literal["classes", "maps", "objects"] = "classes"
    """The labels that it learns: classes of images, class maps, or objects with boxes."""
    seeded: bool = True
    """Whether its scores depend on the seed."""
    after: str = ""
    """A protocol whose trained classifier it takes in place of the model, where both are chosen."""

    @property
    def on_features(self) -> bool:
        """Whether it evaluates frozen features; scores of other features and pools then have other files."""
        return "features" in self.options


def imported(path: str) -> Callable[..., Any]:
    """The function that MODULE:NAME names, imported now."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)  # type: ignore[no-any-return]


def chosen_recipe(protocol: str, fields: Mapping[str, Any], named: Callable[[str | None], T]) -> T:
    """The recipe that `fields` name under `recipe`, with the other fields.

    Args:
        protocol: its name, which stands before the fields in errors.
        fields: as in `ProtocolOptions.recipe`.
        named: the recipe of a name, or the usual one for None.

    Raises:
        LaminaError: for a field that there is not, or that would have no effect.
    """
    others = dict(fields)
    name = others.pop("recipe", None)
    if not isinstance(name, str | None):
        raise LaminaError(f"{protocol}.recipe is the name of a recipe, not {name!r}")
    first = named(name)
    changed = merge(first, others, f"{protocol}.")
    check_read(first, changed, where=f"{protocol}.")
    return changed


def recipe_named(name: str, known: Mapping[str, Callable[[], T]]) -> T:
    """The recipe of that name; raises `LaminaError` with the names there are."""
    if name not in known:
        near = did_you_mean(name, known, cutoff=0.4)
        raise LaminaError(f"there is no recipe {name!r}; {near}there are: {', '.join(known)}")
    return known[name]()
