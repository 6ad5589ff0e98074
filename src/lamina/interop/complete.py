"""The recipe that a run is trained with: open fields filled in from images, weights and teachers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from lamina.core.errors import LaminaError
from lamina.core.interfaces import Target
from lamina.core.text import counted
from lamina.data.decode.unreadable import Unreadable
from lamina.data.loading.sampler import check_batch_size
from lamina.data.options import DataOptions
from lamina.data.read_as import read_as
from lamina.data.sources import Source
from lamina.data.stats import channel_stats
from lamina.data.value_range import BY_FILE
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import check_hiding
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone
from lamina.interop.init_weights import with_epsilon_of
from lamina.interop.teachers import open_target, open_teacher
from lamina.recipes.build import resolve
from lamina.recipes.recipe import Recipe
from lamina.supervised.labels import check_labels


class CompleteRecipe(NamedTuple):
    """A recipe without open fields, and the other networks that it names.

    `target` is None where the recipe's target is a function of the image alone, `teacher` where there is no
    teacher of supervised training.
    """

    recipe: Recipe
    target: Target | None
    teacher: nn.Module | None


def complete(
    recipe: Recipe,
    source: Source,
    init: str | Path | Backbone | None = None,
    own: Recipe | None = None,
) -> CompleteRecipe:
    """Fill in what `recipe` leaves open; a run and its `--dry-run` both call this, and nothing is written.

    These are: how images are read, where their path says it (`read_as`), channel statistics "auto" (measured
    on the images), the epsilon of the layer norms (that of the weights that training starts from), the names
    of the classes, sizes and fused layers (those of the named network), whether JPEGs are decoded at a
    reduced size, which pixels have no data, and the SHA-256 of a teacher or tokenizer.

    Args:
        source: the images that are trained on.
        init: what the encoder starts from.
        own: the recipe of the run that is resumed, which keeps its epsilon and its way of decoding.

    Raises:
        LaminaError: where the images, the weights, the teacher or the parts do not fit together, or no image
            can be read.
    """
    recipe = replace(recipe, data=_with_decoding(read_as(recipe.data, source), own))
    check_batch_size(recipe.train.batch_size, views=recipe.data.views_per_read)
    check_readable(source, recipe)
    check_init(recipe, init)
    encoder = _with_statistics(recipe, source)
    if own is not None:
        eps = own.encoder.norm_eps if encoder.norm_eps is None else encoder.norm_eps
        encoder = replace(encoder, norm_eps=eps)
    elif init is not None:
        encoder = with_epsilon_of(encoder, init)
    recipe = replace(recipe, encoder=encoder)
    recipe = resolve(_with_classes(recipe, source))
    _check_hiding(recipe)
    recipe, target = open_target(recipe)
    recipe, teacher = open_teacher(recipe)
    return CompleteRecipe(recipe, target, teacher)


def _check_hiding(recipe: Recipe) -> None:
    """Refuse a network that cannot be trained with hidden patches; evaluations need whole images alone."""
    if recipe.method != "supervised":
        with torch.device("meta"):
            check_hiding(build_vit(recipe.encoder), recipe.encoder.hide)


def check_readable(source: Source, recipe: Recipe) -> None:
    """Read an image, so that data that do not fit are refused before a run is made or replaced.

    As many unreadable images as stop a training are tried before data are refused.
    """
    tried, reason = min(len(source), recipe.data.bad_files_limit(len(source)) + 1), ""
    for i in range(tried):
        try:
            source.read(i, recipe.data.decoding(recipe.encoder.in_chans))
        except Unreadable as error:
            reason = str(error)
        else:
            return
    raise LaminaError(
        f"none of the first {tried} images can be read ({reason}); see `lamina data check` for all reasons"
    )


def check_init(recipe: Recipe, init: object) -> None:
    """Raise where a recipe has a rule for the weights to start from, and there are none."""
    if init is None and recipe.encoder.init_channels is not None:
        raise LaminaError(
            "encoder.init_channels is a rule for the weights given by --init; give --init too, or leave it "
            "out"
        )


def _with_statistics(recipe: Recipe, source: Source) -> EncoderOptions:
    """The encoder's options with mean and std "auto" replaced by those of the images."""
    options = recipe.encoder
    if "auto" not in (options.mean, options.std):
        return options
    mean, std = channel_stats(source, options.in_chans, recipe.data, seed=recipe.train.seed)
    return replace(
        options,
        mean=mean if options.mean == "auto" else options.mean,
        std=std if options.std == "auto" else options.std,
    )


def _with_decoding(data: DataOptions, own: Recipe | None) -> DataOptions:
    """The options of the images with the way of decoding: that of the run that is resumed, or the new one."""
    new = DataOptions(jpeg_decoding="reduced", nodata=BY_FILE) if own is None else own.data
    unset = [name for name in ("jpeg_decoding", "nodata") if getattr(data, name) is None]
    return replace(data, **{name: getattr(new, name) for name in unset})


def _with_classes(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with the names of the classes, where it trains on labels; refuses images without labels, and
    classes that are not those of the images."""
    if recipe.method != "supervised":
        return recipe
    names, given, several = tuple(source.class_names), recipe.labels, source.multi_labels is not None
    if not several:
        if source.labels is None:
            why = f" ({source.no_labels})" if source.no_labels else ""
            raise LaminaError(
                f"{recipe.name} learns from labels, and these images have none{why}; give a folder with a "
                "subfolder for each class (root/CLASS/...), or a sample"
            )
        check_labels(source.labels, len(names))
    if given.several and not several:
        raise LaminaError(
            "labels.several is true, and each of these images has one class; leave the option out: it "
            "follows from the images"
        )
    if given.classes and given.classes != names:
        raise LaminaError(
            f"the {counted(len(given.classes), 'class', 'classes')} of labels.classes are not the "
            f"{len(names)} of these images, or not in their order; leave the option out: it follows "
            "from the images"
        )
    return replace(recipe, labels=replace(given, classes=names, several=several))
