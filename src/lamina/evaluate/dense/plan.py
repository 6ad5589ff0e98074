"""All that a dense protocol depends on, checked before anything is built, and the score of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from torch import nn

from lamina.core.choices import read_mapping
from lamina.core.config import to_mapping
from lamina.core.errors import LaminaError
from lamina.core.frozen import weights_sha256
from lamina.data.dense.loader import DenseLoader
from lamina.data.dense.window_options import WindowOptions
from lamina.data.options import DataOptions, decoding_facts, higher_limits, with_reading_of
from lamina.data.read_as import read_as
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.dense.data import TwoParts
from lamina.evaluate.dense.encoder import resized_options
from lamina.evaluate.dense.recipe import R
from lamina.evaluate.dense.train import fit_protocol
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import evaluation_folder
from lamina.evaluate.score import Score
from lamina.evaluate.unused_options import check_options
from lamina.evaluate.variants import variant_of
from lamina.features.table import Setting
from lamina.interop.backbone import Backbone, Origin
from lamina.interop.load import as_backbone
from lamina.train.distributed import Ranks
from lamina.train.options import plan_run

COLOUR_CHANNELS = (1, 3)

D = TypeVar("D", bound=TwoParts[Any])


@dataclass(frozen=True)
class DensePlan(Generic[D, R]):
    """All that a dense protocol depends on, checked, before anything is built."""

    backbone: Backbone
    data: D
    recipe: R
    encoder: EncoderOptions
    notes: tuple[str, ...]
    published: R | None
    """The recipe of that name as these images allow it; None for a recipe that was made in Python."""

    @property
    def fill(self) -> tuple[float, ...]:
        """The values that continue an image beyond its edge: the mean that normalisation subtracts."""
        return tuple(self.backbone.encoder.mean.flatten().tolist())

    @property
    def origin(self) -> Origin:
        """The recipe that the model was built by, and its name."""
        return self.backbone.known_origin

    @property
    def reading(self) -> DataOptions:
        """How images are read: as for the model, with the recipe's limits, colours and workers, and as their
        path says."""
        return read_as(with_reading_of(self.recipe.data, self.origin.recipe.data), self.data.train.images)

    @property
    def total_steps(self) -> int:
        """Steps of the training."""
        return plan_run(self.recipe.train, len(self.data.train.images)).total_steps

    @property
    def schedule(self) -> dict[str, Setting]:
        """The settings of the training that a reader of the score has to know."""
        batch = self.recipe.train.batch_size
        lr = self.recipe.optim.base_lr * batch / 256
        return {"batch": batch, "lr": lr, "steps": self.total_steps}

    def placed(self, run_options: RunOptions) -> Self:
        """The plan with the seed, the device and the workers of `run_options`."""
        return replace(self, recipe=run_options.applied_to(self.recipe))

    def folder(self, name: str, model: str | Path | Backbone, run_options: RunOptions) -> Path:
        """The folder of the training, see `evaluation_folder`."""
        return evaluation_folder(run_options, self.backbone, model, name, self.data.name)

    def loader(
        self, options: DataOptions, window: WindowOptions, ranks: Ranks, least_px: int = 1
    ) -> DenseLoader:
        """Training windows of this rank; the arguments are `DenseLoader`'s."""
        train = self.recipe.train
        return DenseLoader(
            self.data.train,
            options,
            window,
            train.seed,
            train.batch_size,
            ranks.rank,
            ranks.world,
            in_chans=self.encoder.in_chans,
            fill=self.fill,
            least_px=least_px,
        )

    def fit(
        self, task: nn.Module, loader: DenseLoader, protocol: str, out: Path, run_options: RunOptions
    ) -> None:
        """Train the task in place, in the folder `out`, and leave it in evaluation mode; raises as
        `fit_protocol`."""
        recipe, settings = self.recipe, self.settings(protocol)
        fit_protocol(task, loader, recipe.optim, recipe.train, out, settings, run_options, kind=type(recipe))
        task.eval()

    def settings(self, protocol: str) -> dict[str, Any]:
        """All that the numbers depend on."""
        recipe = read_mapping(self.recipe)
        recipe["data"] |= decoding_facts(self.reading)
        return {
            "protocol": protocol,
            "model": self.origin.name,
            "step": self.origin.step,
            "weights_sha256": weights_sha256(self.backbone.encoder.vit.state_dict()),
            "data": self.data.name,
            "images": self.data.images_digest,
            "classes": list(self.data.classes),
            "training_images": len(self.data.train.images),
            "recipe": recipe,
            "network": to_mapping(self.encoder),
        }

    def score(
        self,
        protocol: str,
        metric: str,
        value: float,
        interval: tuple[float, float] | None,
        n_test: int,
        settings: dict[str, Setting],
        more: dict[str, float],
        notes: tuple[str, ...],
    ) -> Score:
        """The score of a result, with all that the plan knows of it; `notes` follow the plan's own."""
        name, (rows, columns) = self.recipe.name, self.recipe.window.pixels
        length = [f"{settings['steps']} steps"] if "steps" in settings else []
        return Score(
            protocol=protocol,
            model=self.origin.name,
            step=self.origin.step,
            data=self.data.name,
            metric=metric,
            value=value,
            interval=interval,
            n_train=len(self.data.train.images),
            n_test=n_test,
            seed=self.recipe.train.seed,
            settings={"recipe": name, "window": f"{rows} x {columns} px", **settings},
            variant=variant_of(", ".join([name, *length]), self.recipe, self.published),
            more=more,
            notes=(*self.notes, *notes),
            images=self.data.images_digest,
        )


def plan_dense(
    model: str | Path | Backbone,
    data: D,
    recipe: R,
    encoder: str | EncoderOptions | None,
    label_notes: Callable[[D], tuple[str, ...]],
    named: Callable[[str], R],
) -> DensePlan[D, R]:
    """Open the model, complete the recipe, and refuse what does not fit.

    Args:
        label_notes: notes on unusual labels of the data.
        named: the recipe of a name; raises where there is none.

    Raises:
        LaminaError: one line on what is wrong with the model, the data or the recipe.
    """
    if recipe.train.shard != "none":
        raise LaminaError(
            "train.shard fsdp does not work with segment and detect, which test the network on each process "
            "with all of its weights; leave it out"
        )
    backbone = as_backbone(model, encoder)
    n_train = len(data.train.images)
    requested = recipe
    recipe, notes = _fitted(requested, backbone, n_train)
    try:
        published, _ = _fitted(named(recipe.name), backbone, n_train)
    except LaminaError:
        published = None
    else:
        check_options(requested, named(recipe.name), recipe)
    options = resized_options(backbone, recipe.window.pixels, recipe.encoder)
    found = dict.fromkeys((*data.train.images.notes, *data.test.images.notes))
    return DensePlan(backbone, data, recipe, options, (*found, *notes, *label_notes(data)), published)


def _fitted(recipe: R, backbone: Backbone, n_train: int) -> tuple[R, tuple[str, ...]]:
    """The recipe with windows in numbers, the model's way of reading images and no larger a batch than there
    are images; and notes on its options that did not fit."""
    own, notes = backbone.known_origin.recipe.data, []
    window = recipe.window.resolved(backbone.image_size, backbone.encoder.patch)
    size = recipe.window.size
    if size is not None and window.pixels != (size[0], size[-1]):
        rows, columns = window.pixels
        notes.append(f"windows of {rows} x {columns} px, a multiple of the patch, in place of {size[0]}")
    data = replace(recipe.data, **higher_limits(own, recipe.data))
    channels = backbone.encoder.in_chans
    if data.jitter is not None and channels not in COLOUR_CHANNELS:
        data = replace(data, jitter=None)
        notes.append(f"no colour jitter, which takes 1 or 3 channels: {channels} here")
    train = recipe.train
    if n_train < train.batch_size:
        notes.append(f"batch {n_train}, all images there are, in place of {train.batch_size}")
        train = replace(train, batch_size=n_train)
    return replace(recipe, window=window, data=data, train=train), tuple(notes)
