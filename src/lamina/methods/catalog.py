"""Every recipe by its name, and the changes that make one small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from lamina.core.config import meant
from lamina.core.errors import LaminaError
from lamina.recipes.guided import (
    beit,
    beit_published,
    eva,
    eva_published,
    eva_tokens,
    eva_tokens_published,
    maskfeat,
    maskfeat_published,
    milan,
    milan_published,
)
from lamina.recipes.others import cmae, cmae_published, deit, deit_published
from lamina.recipes.pixels import (
    crossmae,
    crossmae_published,
    mae,
    mae_published,
    pixio,
    pixio_published,
    pixmim,
    pixmim_published,
    residual_decay,
    residual_decay_published,
    simmim,
    simmim_published,
)
from lamina.recipes.recipe import Recipe, Size


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
    recipe = small(mae())
    return replace(
        recipe,
        name="demo",
        encoder=replace(recipe.encoder, image_size=(20, 20), patch_size=4, width=96, depth=6, heads=3),
        decoder=replace(recipe.decoder, width=64, depth=4, heads=4),
        fusion=replace(recipe.fusion, layers="all", logit_lr_scale=30.0),
        optim=replace(recipe.optim, warmup_epochs=2.0),
        train=replace(recipe.train, epochs=30.0, batch_size=64),
    )


def methods() -> dict[str, Callable[[Size], Recipe]]:
    """The published recipe of every method, by the method's name."""
    return {
        "mae": mae_published,
        "pixmim": pixmim_published,
        "simmim": simmim_published,
        "maskfeat": maskfeat_published,
        "beit": beit_published,
        "eva": eva_published,
        "eva-tokens": eva_tokens_published,
        "milan": milan_published,
        "crossmae": crossmae_published,
        "pixio": pixio_published,
        "residual-decay": residual_decay_published,
        "cmae": cmae_published,
        "deit": deit_published,
    }


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every recipe by its name."""
    sizes: tuple[Size, ...] = ("ti", "s", "b", "l", "h")
    plain: dict[str, Callable[[], Recipe]] = {
        "mae": mae,
        "pixmim": pixmim,
        "simmim": simmim,
        "maskfeat": maskfeat,
        "beit": beit,
        "eva": eva,
        "eva-tokens": eva_tokens,
        "milan": milan,
        "crossmae": crossmae,
        "pixio": pixio,
        "residual-decay": residual_decay,
        "cmae": cmae,
        "deit": deit,
    }
    shrunk = {f"{name}-small": partial(_small, build) for name, build in plain.items()}
    sized = {f"{name}-{size}": partial(build, size) for name, build in methods().items() for size in sizes}
    return {**plain, **shrunk, **sized, "demo": demo}


def recipe(name: str) -> Recipe:
    """The recipe of a method by its name; raises with the names there are."""
    known = recipes()
    if name not in known:
        raise LaminaError(
            f"there is no recipe {name!r}; {meant(name, known)}choose one of "
            f"{', '.join([*methods(), 'demo'])}, with -small, or with "
            "-ti, -s, -b, -l, -h as published (`lamina recipes`)"
        )
    return known[name]()
