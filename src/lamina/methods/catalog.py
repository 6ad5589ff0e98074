"""The methods, a row each, and every recipe by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

from lamina.core.config import did_you_mean
from lamina.core.errors import LaminaError
from lamina.methods.beit import beit_published, beit_recipe
from lamina.methods.cmae import cmae_published, cmae_recipe
from lamina.methods.crossmae import crossmae_published, crossmae_recipe
from lamina.methods.deit import deit_published, deit_recipe
from lamina.methods.eva import eva_published, eva_recipe, eva_tokens_published, eva_tokens_recipe
from lamina.methods.fast import fast_mff_recipe, fast_mff_sized, fast_recipe, fast_sized
from lamina.methods.mae import mae_published, mae_recipe
from lamina.methods.maskfeat import maskfeat_published, maskfeat_recipe
from lamina.methods.milan import milan_published, milan_recipe
from lamina.methods.pixio import pixio_published, pixio_recipe
from lamina.methods.pixmim import pixmim_published, pixmim_recipe
from lamina.methods.residual_decay import residual_decay_published, residual_decay_recipe
from lamina.methods.simmim import simmim_published, simmim_recipe
from lamina.recipes.recipe import Recipe, Size


@dataclass(frozen=True)
class Method:
    """A method of the field by its recipes; each is a file of this folder."""

    name: str
    """As `--recipe` takes it."""
    published: Callable[[Size], Recipe]
    """NAME-ti, -s, -b, -l and -h: the method as it was published (`fast` was not: on MAE's schedule)."""
    recipe: Callable[[], Recipe]
    """NAME: sized for one GPU and a folder of images, with MFF where the method has no fusion of its own;
    `fast` has none, since `fast-mff` is the same with MFF."""


METHODS = (
    Method("mae", mae_published, mae_recipe),
    Method("pixmim", pixmim_published, pixmim_recipe),
    Method("simmim", simmim_published, simmim_recipe),
    Method("maskfeat", maskfeat_published, maskfeat_recipe),
    Method("beit", beit_published, beit_recipe),
    Method("eva", eva_published, eva_recipe),
    Method("eva-tokens", eva_tokens_published, eva_tokens_recipe),
    Method("milan", milan_published, milan_recipe),
    Method("crossmae", crossmae_published, crossmae_recipe),
    Method("fast", fast_sized, fast_recipe),
    Method("fast-mff", fast_mff_sized, fast_mff_recipe),
    Method("pixio", pixio_published, pixio_recipe),
    Method("residual-decay", residual_decay_published, residual_decay_recipe),
    Method("cmae", cmae_published, cmae_recipe),
    Method("deit", deit_published, deit_recipe),
)
SIZES: tuple[Size, ...] = get_args(Size)


def small(recipe: Recipe) -> Recipe:
    """The same method for small images: 64 px, patch 8, an encoder of 192 x 12, a decoder of 128 x 4.

    lamina pretrain tiles/ --out runs/tiles --recipe mae-small
    """
    encoder = replace(recipe.encoder, name="vit_tiny_patch16_224", image_size=(64, 64), patch_size=8)
    return replace(
        recipe,
        name=f"{recipe.name}-small",
        encoder=encoder,
        decoder=replace(recipe.decoder, width=128, depth=4, heads=4),
        masking=replace(recipe.masking, unit_px=16),
        data=replace(recipe.data, eval_crop_share=1.0),
        optim=replace(recipe.optim, base_lr=1e-3),
    )


def _small(build: Callable[[], Recipe]) -> Recipe:
    return small(build())


def demo() -> Recipe:
    """A small ViT with MFF for crops of photographs, which `make demo` trains in minutes on two cores.

    lamina demo
    """
    recipe = small(mae_recipe())
    return replace(
        recipe,
        name="demo",
        encoder=replace(recipe.encoder, image_size=(20, 20), patch_size=4, width=96, depth=6, heads=3),
        decoder=replace(recipe.decoder, width=64, depth=4, heads=4),
        fusion=replace(recipe.fusion, layers="all", logit_lr_scale=30.0),
        optim=replace(recipe.optim, warmup_epochs=2.0),
        train=replace(recipe.train, epochs=30.0, batch_size=64),
    )


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every recipe by its name."""
    plain = {method.name: method.recipe for method in METHODS}
    shrunk = {f"{name}-small": partial(_small, build) for name, build in plain.items()}
    sized = {f"{m.name}-{size}": partial(m.published, size) for m in METHODS for size in SIZES}
    return {**plain, **shrunk, **sized, "demo": demo}


def recipe(name: str) -> Recipe:
    """The recipe of a method by its name; raises with the names there are."""
    known = recipes()
    if name not in known:
        raise LaminaError(
            f"there is no recipe {name!r}; {did_you_mean(name, known)}choose one of "
            f"{', '.join([*(method.name for method in METHODS), 'demo'])}, with -small, or with "
            "-ti, -s, -b, -l, -h as published (`lamina recipes`)"
        )
    return known[name]()
