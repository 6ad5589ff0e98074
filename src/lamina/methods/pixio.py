"""Pixio: MAE with larger masked squares, several class tokens and a deep decoder, arXiv 2512.15715."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamina.decoder.options import DecoderOptions
from lamina.masking.options import MaskingOptions
from lamina.methods.compose import Statistics, around
from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import Recipe, Size

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM


def pixio_published(size: Size = "h") -> Recipe:
    """Pixio (arXiv 2512.15715) as far as it is a method: MAE that hides squares of 4 x 4 patches, 8 class
    tokens, a decoder of 32 blocks.

    lamina pretrain images/ --out runs/pixio --recipe pixio-h --image-size 256 --patch-size 16

    Its results (frozen ViT-H/16: ADE20K linear 50.2 mIoU) come from two billion curated web images. Its
    ImageNet script: batch 8192, base_lr 2.5e-5, drop path 0.4, 400 units of 1605 steps, 40 of them warm-up.
    """
    recipe = mae_published(size)
    patch_px = 14 if size == "h" else 16
    return replace(
        recipe,
        name=f"pixio-{size}",
        encoder=replace(recipe.encoder, class_tokens=8),
        masking=MaskingOptions(kind="blocks", mask_ratio=0.75, unit_px=4 * patch_px),
        decoder=DecoderOptions(width=512, depth=32, heads=16),
        optim=replace(recipe.optim, base_lr=2.5e-5),
        train=replace(recipe.train, batch_size=8192),
    )


def pixio_recipe(size: Size = "s") -> Recipe:
    """Pixio's method with MFF for a folder of images, on the schedule of `mae`.

    lamina pretrain photos/ --out runs/pixio --recipe pixio
    """
    published, plain = pixio_published(size), mae_recipe(size)
    return replace(
        plain,
        name="pixio",
        encoder=published.encoder,
        masking=published.masking,
        decoder=published.decoder,
    )


def pixio(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    unit: int = 4,
    class_tokens: int = 8,
    decoder_width: int = 512,
    decoder_depth: int = 32,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """Pixio (arXiv 2512.15715): MAE that hides squares of `unit` x `unit` patches and decodes deeply.

    The class tokens are those of `vit`: a class token and `reg_tokens=7` make timm's ViT have eight.
    """
    from lamina.masking.units import BlockMasking

    changes = {
        "encoder": {"class_tokens": class_tokens},
        "decoder": {"width": decoder_width, "depth": decoder_depth, "heads": decoder_heads},
    }
    return around(
        vit, pixio_published(), changes, fusion, mean=mean, std=std, masking=BlockMasking(mask_ratio, unit)
    )
