"""CrossMAE: Fu et al., "Rethinking Patch Dependence for Masked Autoencoders", TMLR 2025, arXiv 2401.14391."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamina.decoder.options import DecoderOptions
from lamina.methods.compose import Statistics, around, masking_and_decoder
from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import Recipe, Size

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM


def crossmae_published(size: Size = "b") -> Recipe:
    """CrossMAE as published (arXiv 2401.14391): each decoder block reads its own mix of all layers, 49 of 196
    patches are predicted.

    lamina pretrain imagenet/train --out runs/crossmae-b --recipe crossmae-b

    MAE's 800 epochs at batch 4096; a decoder of 12 blocks, of 256 channels for ViT-S (and Ti), 512 beyond.
    Published, ImageNet-1k top-1 fine-tuned: S 79.3, B 83.7, L 85.4, H 86.3. With `--fusion mff` or none all
    blocks read one latent.
    """
    recipe = mae_published(size)
    width, heads = (256, 8) if size in ("ti", "s") else (512, 16)
    return replace(
        recipe,
        name=f"crossmae-{size}",
        decoder=DecoderOptions(kind="cross", width=width, depth=12, heads=heads, predict_share=0.25),
        fusion=replace(recipe.fusion, kind="mix"),
    )


def crossmae_recipe(size: Size = "s") -> Recipe:
    """CrossMAE with its own mix of layers (not MFF) for a folder of images, on the schedule of `mae`.

    lamina pretrain photos/ --out runs/crossmae --recipe crossmae
    """
    published, plain = crossmae_published(size), mae_recipe(size)
    fusion = replace(plain.fusion, kind="mix")
    return replace(plain, name="crossmae", decoder=published.decoder, fusion=fusion)


def crossmae(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    predict_share: float = 0.25,
    decoder_width: int = 512,
    decoder_depth: int = 12,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """CrossMAE (Fu et al., TMLR 2025, arXiv 2401.14391): a decoder of cross-attention alone for a share of
    all patches, each of its blocks reading its own mix of layers; another fusion is read by all of them."""
    changes = masking_and_decoder(mask_ratio, decoder_width, decoder_depth, decoder_heads)
    changes["decoder"]["predict_share"] = predict_share
    return around(vit, crossmae_published(), changes, fusion, mean=mean, std=std)
