"""CMAE: Huang et al., "Contrastive Masked Autoencoders are Stronger Vision Learners", arXiv 2207.13532."""

from __future__ import annotations

from dataclasses import replace

from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import Recipe, Size


def cmae_published(size: Size = "b") -> Recipe:
    """CMAE as published (arXiv 2207.13532): MAE at 0.65, and a second view for a slow copy of the encoder.

    lamina pretrain imagenet/train --out runs/cmae-b --recipe cmae-b

    1600 epochs at batch 4096. Published, ImageNet-1k top-1, fine-tuned: ViT-B 84.7 (300 epochs: 83.8).
    """
    recipe = mae_published(size)
    return replace(
        recipe,
        name=f"cmae-{size}",
        method="cmae",
        masking=replace(recipe.masking, mask_ratio=0.65),
        data=replace(recipe.data, second_view="cmae"),
        train=replace(recipe.train, epochs=1600.0),
    )


def cmae_recipe(size: Size = "s") -> Recipe:
    """CMAE with MFF for a folder of images, on the schedule of `mae`.

    lamina pretrain photos/ --out runs/cmae --recipe cmae
    """
    recipe, published = mae_recipe(size), cmae_published(size)
    return replace(
        recipe, name="cmae", method=published.method, masking=published.masking, data=published.data
    )
