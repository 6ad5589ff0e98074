"""MILAN: Hou et al., "MILAN: Masked Image Pretraining on Language Assisted Representation", arXiv
2208.06049.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamina.masking.options import MaskingOptions
from lamina.methods.compose import Statistics, around, masking_and_decoder
from lamina.methods.eva import eva_published, eva_recipe
from lamina.recipes.recipe import Recipe, Size

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM
    from lamina.targets.teacher import Teacher


def milan_published(size: Size = "b") -> Recipe:
    """MILAN as in mmpretrain (arXiv 2208.06049): a teacher's features at all patches, what it attends to
    stays visible, a prompting decoder.

    lamina pretrain imagenet/train --out runs/milan-b --recipe milan-b

    400 epochs at batch 4096; the teacher is CLIP's ViT-B/16 with its projection to 512. Published,
    ImageNet-1k top-1, fine-tuned / linear: ViT-B 85.3 / 78.9. The class token's own prediction, part of
    mmpretrain's loss (1 of 197 positions), is left out.
    """
    recipe = eva_published(size)
    return replace(
        recipe,
        name=f"milan-{size}",
        masking=MaskingOptions(kind="scored", mask_ratio=0.75),
        decoder=replace(recipe.decoder, kind="prompt"),
    )


def milan_recipe(size: Size = "s") -> Recipe:
    """MILAN with MFF for a folder of images; any encoder with a class token can teach.

    lamina pretrain photos/ --out runs/milan --recipe milan --target.teacher timm/vit_small_patch16_224.dino
    """
    recipe, published = eva_recipe(size), milan_published(size)
    return replace(recipe, name="milan", masking=published.masking, decoder=published.decoder)


def milan(
    vit: Network,
    target: Teacher,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """MILAN (Hou et al., arXiv 2208.06049): what the teacher attends to stays visible, a prompting decoder,
    the teacher's features at all patches, cosine. The target is a `Teacher(..., scores=True)`."""
    changes = masking_and_decoder(mask_ratio, decoder_width, decoder_depth, decoder_heads)
    return around(vit, milan_published(), changes, fusion, target, mean, std)
