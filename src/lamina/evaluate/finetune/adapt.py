"""From a protocol's recipe and a model to the recipe that is run: its network, its images, its sizes."""

from __future__ import annotations

from dataclasses import replace

from lamina.core.errors import LaminaError
from lamina.data.options import DECODING_FIELDS, higher_limits
from lamina.data.sources import Source
from lamina.evaluate.finetune.recipes import protocols
from lamina.evaluate.unused_options import check_classifier_options
from lamina.interop.backbone import Backbone
from lamina.recipes.recipe import Recipe, Size

_WIDTHS: dict[tuple[int, int], Size] = {
    (192, 12): "ti",
    (384, 12): "s",
    (768, 12): "b",
    (1024, 24): "l",
    (1280, 32): "h",
}


def protocol_recipe(protocol: str, backbone: Backbone) -> Recipe:
    """The recipe of a protocol for a network: the published one of its size where there is one."""
    size = _WIDTHS.get((backbone.encoder.width, backbone.encoder.depth))
    known = protocols()
    return known.get(f"{protocol}-{size}", known[protocol])()


def recipe_of(protocol: str, name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        LaminaError: where there is none, or it is of another protocol.
    """
    known = {each: build for each, build in protocols().items() if each.startswith(protocol)}
    if name not in known:
        raise LaminaError(f"there is no recipe {name!r} of {protocol}; choose one of {', '.join(known)}")
    return known[name]()


def adapted(recipe: Recipe, backbone: Backbone, train: Source) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with the model's network, normalisation and reading, no larger a batch than there are
    images, and remarks on what of it these images do not allow.

    Of the recipe's own encoder `drop_path`, `activation_checkpointing` and, where it is set, `image_size`
    stay.

    Raises:
        LaminaError: for a backbone that was put together by hand, and for options of the recipe that would
            have no effect.
    """
    if backbone.origin is None:
        raise LaminaError("this backbone does not say how it is built; load it by its name")
    own, asked = backbone.origin.recipe, recipe.encoder
    size = asked.image_size if asked.image_size is not None else backbone.image_size
    encoder = replace(
        own.encoder,
        image_size=size,
        drop_path=asked.drop_path,
        activation_checkpointing=asked.activation_checkpointing,
        hide="drop",
        start="timm",  # positions learn, whatever they were in pre-training
        zero_branches=False,
    )
    reading = {name: getattr(own.data, name) for name in ("eval_crop_share", *DECODING_FIELDS)}
    data, notes = replace(recipe.data, **reading, **higher_limits(own.data, recipe.data)), []
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
    train_options = replace(recipe.train, batch_size=batch_size)
    changed = replace(
        recipe, encoder=encoder, data=data, supervised=supervised, optim=optim, train=train_options
    )
    check_classifier_options(recipe, _published(recipe), changed)
    return changed, tuple(notes)


def _published(recipe: Recipe) -> Recipe:
    """The named recipe that this one started from; of one with a name of its own, fine-tuning's."""
    known = protocols()
    return known.get(recipe.name, known["finetune"])()
