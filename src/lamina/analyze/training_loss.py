"""The loss that a run was trained with, and mini-batches for it, held out or augmented as in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lamina.analyze.models import Images, subsample
from lamina.analyze.options import Crops
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import Spec, held_out, open_source
from lamina.data.sources import Source
from lamina.interop.teachers import open_target
from lamina.mim import mim_of
from lamina.recipes.build import Task
from lamina.recipes.recipe import Recipe
from lamina.runs.model_spec import locate_step
from lamina.runs.run import load_task
from lamina.supervised.classifier import Supervised
from lamina.targets.missing import MissingTarget


@dataclass(frozen=True)
class OwnLoss:
    """A task with its own loss, and the recipe that it was trained by."""

    task: Task
    recipe: Recipe


def open_loss(spec: str) -> OwnLoss:
    """What a run trained (RUN, RUN@STEP), with the teacher or tokenizer of its target.

    Of a classifier with a slow copy (`SupervisedOptions.ema`) it is the weights that were trained, not the
    copy.

    Raises:
        LaminaError: where it is no run, or that network cannot be opened or is another one by now.
    """
    task, recipe = load_task(*locate_step(spec))
    inner = mim_of(task)
    if inner is not None and isinstance(inner.target, MissingTarget):
        resolved, target = open_target(recipe)
        if resolved.target.target_sha256 != recipe.target.target_sha256:
            raise LaminaError(
                f"{recipe.target.target_model} is not the network that {spec} was trained with; put that "
                "one back"
            )
        assert target is not None
        inner.target = target
    if isinstance(task, Supervised):
        task.average = None
    return OwnLoss(task, recipe)


def mini_batches(
    losses: Mapping[str, OwnLoss], data: Spec, crops: Crops, n: int, batch_size: int, seed: int
) -> list[Batch]:
    """`n` mini-batches for all of the losses, read as the first one's recipe says.

    eval: of the held-out part (all, where the data have no parts), drawn by the seed, centre-cropped.
    train: of the training part in an order of its own, cropped, flipped, augmented and erased as in training;
    all of it a function of (seed, sample), as `TrainLoader` does. Keys, and with them masks, are the samples'
    either way. Nothing is mixed here: that is the task's own, in training mode.

    Raises:
        LaminaError: where there are too few images, or none that fit all of the losses; for eval, where one
            that was drawn cannot be read.
    """
    first = next(iter(losses.values())).recipe
    height, width = first.encoder.image_size  # type: ignore[misc]  # resolved
    source = open_source(data, held_out(data) if crops == "eval" else None)
    _check(losses, source, crops)
    if crops == "eval":
        if n * batch_size > len(source):
            raise LaminaError(
                f"{n} mini-batches of {batch_size} need {n * batch_size} images and there are "
                f"{len(source)}; take fewer, or smaller ones"
            )
        drawn = subsample(source, n * batch_size, seed)
        images = Images(drawn, (height, width), first.encoder.in_chans, batch_size, 0, first.data)
        batches = list(images)
        if images.unread:
            name = printable(drawn.name(min(images.unread)))
            raise LaminaError(
                f"{len(images.unread)} of {len(drawn)} images cannot be read ({name}), and mini-batches are "
                "of one size; take them out, or another --seed"
            )
        return batches
    loader = TrainLoader(
        source,
        replace(first.data, workers=0),
        seed,
        batch_size,
        image_size=(height, width),
        in_chans=first.encoder.in_chans,
        statistics=(first.encoder.mean, first.encoder.std),  # type: ignore[arg-type]  # resolved
    )
    return list(loader.batches(0, n))


def _check(losses: Mapping[str, OwnLoss], source: Source, crops: Crops) -> None:
    """Refuse runs whose losses cannot be computed on the same mini-batches, or not on these images."""
    recipes = {name: loss.recipe for name, loss in losses.items()}
    shapes = {(recipe.encoder.image_size, recipe.encoder.in_chans) for recipe in recipes.values()}
    if len(shapes) > 1:
        raise LaminaError(
            "the runs take images of different sizes or channels, and all need the same mini-batches"
        )
    if len({recipe.data.second_view for recipe in recipes.values()}) > 1:
        raise LaminaError(
            "cmae compares two views of an image, which the other runs do not take; analyse it separately"
        )
    for name, recipe in recipes.items():
        if recipe.data.second_view != "none" and crops == "eval":
            raise LaminaError(f"the loss of {name} compares two crops of an image; take --crops train")
        if recipe.method != "supervised":
            continue
        if (source.multi_labels if recipe.labels.several else source.labels) is None:
            raise LaminaError(f"{name} was trained on labels, and these images have none; give labelled ones")
        if source.class_names != recipe.labels.classes:
            raise LaminaError(f"{name} learned other classes than these images have; give its own")
