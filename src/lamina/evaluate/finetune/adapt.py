"""From a protocol's recipe and a model to the recipe that is run: its network, its images, its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lamina.core.choices import check_read
from lamina.core.config import merge
from lamina.data.options import with_reading_of
from lamina.data.read_as import read_as
from lamina.data.sources import Source
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.encoder_options import EncoderChanges
from lamina.evaluate.finetune.recipes import FinetuneRecipe, finetune_recipes, recipe_of
from lamina.evaluate.protocol import chosen_recipe
from lamina.evaluate.unused_options import check_options
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.recipes.recipe import LabelOptions, Recipe, Size

_WIDTHS: dict[tuple[int, int], Size] = {
    (192, 12): "ti",
    (384, 12): "s",
    (768, 12): "b",
    (1024, 24): "l",
    (1280, 32): "h",
}


def protocol_recipe(protocol: str, backbone: Backbone) -> FinetuneRecipe:
    """The recipe of a protocol for a network: the published one of its size where there is one."""
    size = _WIDTHS.get((backbone.encoder.width, backbone.encoder.depth))
    known = finetune_recipes()
    return known.get(f"{protocol}-{size}", known[protocol])()


def adapt_recipe(recipe: FinetuneRecipe, backbone: Backbone, train: Source) -> tuple[Recipe, tuple[str, ...]]:
    """The supervised training that a recipe is with this model: with its network, its normalisation and its
    way of reading images or that of their path, and no larger a batch than there are images; and remarks on
    what of the recipe these images do not allow.

    Raises:
        LaminaError: for a backbone that was put together by hand, and for options of the recipe that would
            have no effect.
    """
    own, given = backbone.known_origin.recipe, recipe.encoder
    size = given.image_size if given.image_size is not None else backbone.image_size
    encoder = options_to_train(own.encoder, size, given)
    data, notes = read_as(with_reading_of(recipe.data, own.data), train), []
    if data.auto_augment is not None and encoder.in_chans != 3:
        data = replace(data, auto_augment=None)
        notes.append(f"no {recipe.data.auto_augment}, which takes RGB: {encoder.in_chans} channel(s) here")
    supervised = recipe.supervised
    if supervised.pool in (None, "cls") and not backbone.encoder.n_class:
        supervised = replace(supervised, pool="mean")
        notes.append("the encoder has no class token: the mean of the patches is read")
    batch_size = min(recipe.train.batch_size, len(train))
    optim = recipe.optim
    if batch_size < recipe.train.batch_size:
        notes.append(f"batch {batch_size}, all images there are, in place of {recipe.train.batch_size}")
        if optim.kind == "lars":  # its rate is a share of the weights' norm, not of a gradient's noise
            optim = replace(optim, base_lr=optim.base_lr * recipe.train.batch_size / batch_size)
    training = Recipe(
        name=recipe.name,
        method="supervised",
        encoder=encoder,
        fusion=recipe.fusion,
        supervised=supervised,
        labels=LabelOptions(recipe.labels.teacher),
        data=data,
        loss="cross_entropy",
        optim=optim,
        train=replace(recipe.train, batch_size=batch_size),
        monitor=recipe.monitor,
    )
    # A recipe with a name of its own, which was made in Python, is compared with fine-tuning's.
    published = finetune_recipes().get(recipe.name, finetune_recipes()["finetune"])()
    check_options(recipe, published, training)
    return training, tuple(notes)


def options_to_train(own: EncoderOptions, size: tuple[int, ...], changes: EncoderChanges) -> EncoderOptions:
    """A model's network for images of `size`, a side or height and width in px, as a protocol trains it."""
    return replace(
        own,
        image_size=size,
        drop_path=changes.drop_path,
        activation_checkpointing=changes.activation_checkpointing,
        hide="drop",
        weight_init="timm",  # positions learn, whatever they were in pre-training
        zero_branches=False,
    )


def classifier_recipe(
    protocol: str,
    model: str,
    fields: Mapping[str, Any],
    epochs: float | None = None,
    encoder: str | EncoderOptions | None = None,
) -> FinetuneRecipe | None:
    """The recipe of linear-mae, attentive or finetune with other fields; None for the published one as it is.

    Args:
        protocol: which of the three.
        model: its size decides which recipe is the published one.
        fields: `recipe`, the name of the one to start from, and what differs from it.
        epochs: in place of the recipe's; the warm-up keeps its share.
        encoder: timm name or options of the network, for a weights file that does not say.
    """
    if epochs is None and not fields:
        return None

    def named(name: str | None) -> FinetuneRecipe:
        if name is None:
            return protocol_recipe(protocol, load_encoder(model, encoder=encoder, pretrained=False))
        return recipe_of(protocol, name)

    found = chosen_recipe(protocol, fields, named)
    if epochs is None:
        return found
    warm_up = found.optim.warmup_epochs * epochs / found.train.epochs
    shortened = merge(found, {"train": {"epochs": epochs}, "optim": {"warmup_epochs": warm_up}})
    check_read(found, shortened, where=f"{protocol}.")
    return shortened
