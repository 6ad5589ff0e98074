"""PixMIM: Liu et al., "PixMIM: Rethinking Pixel Reconstruction in Masked Image Modeling", arXiv
2303.02416.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamina.methods.compose import Statistics, around, masking_and_decoder
from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import Recipe, Size

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM


def pixmim_published(size: Size = "b") -> Recipe:
    """PixMIM as published (arXiv 2303.02416), on MAE.

    lamina pretrain imagenet/train --out runs/pixmim-b --recipe pixmim-b

    Published, ImageNet-1k top-1, fine-tuned / linear: ViT-B, 800 epochs, 83.5 / 67.5 (mmselfsup).
    """
    return _pixmim(mae_published(size))


def pixmim_recipe(size: Size = "s") -> Recipe:
    """PixMIM with MFF for a folder of images: `mae` with a low-passed target and the simple resized crop.

    lamina pretrain photos/ --out runs/pixmim --recipe pixmim
    """
    return _pixmim(mae_recipe(size))


def _pixmim(recipe: Recipe) -> Recipe:
    """PixMIM's two changes to MAE (arXiv 2303.02416): the low-passed target and the simple resized crop."""
    return replace(
        recipe,
        name=recipe.name.replace("mae", "pixmim"),
        target=replace(recipe.target, low_pass=40 / 112),
        data=replace(recipe.data, crop="simple_resized"),
    )


def pixmim(
    vit: Network,
    fusion: Fusion | None = None,
    low_pass: float = 40 / 112,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """PixMIM (Liu et al., TMLR 2024, arXiv 2303.02416): MAE on a low-passed target. Its other change, the
    simple resized crop, belongs to the data, and so to the recipe."""
    changes = {
        **masking_and_decoder(mask_ratio, decoder_width, decoder_depth, decoder_heads),
        "target": {"low_pass": low_pass},
    }
    return around(vit, pixmim_published(), changes, fusion, mean=mean, std=std)
