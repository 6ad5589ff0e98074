"""MAE with shortcuts that fade with depth: Zhang et al., arXiv 2404.10947."""

from __future__ import annotations

from dataclasses import replace

from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import Recipe, Size


def residual_decay_published(size: Size = "b") -> Recipe:
    """MAE whose shortcuts fade with depth (arXiv 2404.10947): alpha falls linearly to 0.6.

    lamina pretrain imagenet/train --out runs/decay-b --recipe residual-decay-b

    Published, ImageNet-1k top-1, linear: ViT-B 72.7, where MAE has 67.8.
    """
    recipe = mae_published(size)
    return replace(
        recipe,
        name=f"residual-decay-{size}",
        encoder=replace(recipe.encoder, residual_decay=0.6, zero_branches=True),
    )


def residual_decay_recipe(size: Size = "s") -> Recipe:
    """Residual decay with MFF for a folder of images: `mae` with shortcuts that fade to 0.6.

    lamina pretrain photos/ --out runs/decay --recipe residual-decay
    """
    recipe = mae_recipe(size)
    return replace(
        recipe, name="residual-decay", encoder=replace(recipe.encoder, residual_decay=0.6, zero_branches=True)
    )
