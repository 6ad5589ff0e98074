"""EVA: Fang et al., "EVA: Exploring the Limits of Masked Visual Representation Learning at Scale", arXiv
2211.07636.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamina.decoder.options import DecoderOptions
from lamina.encoder.options import EncoderOptions
from lamina.masking.options import MaskingOptions
from lamina.methods.compose import Statistics, around, for_a_folder, masking_and_decoder
from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size
from lamina.targets.options import TargetOptions
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM
    from lamina.targets.teacher import Teacher

CLIP = "timm/vit_base_patch16_clip_224.openai"
"""The teacher that EVA and MILAN were published with."""


def eva_published(size: Size = "b") -> Recipe:
    """EVA (arXiv 2211.07636) in MAE's form, as in mmpretrain: a teacher's features at the hidden patches.

    lamina pretrain imagenet/train --out runs/eva-b --recipe eva-b

    400 epochs at batch 4096; the teacher is CLIP's ViT-B/16 with its projection to 512. Published,
    ImageNet-1k top-1, fine-tuned / linear: ViT-B 83.7 / 69.0 (mmpretrain).
    """
    recipe = mae_published(size)
    return replace(
        recipe,
        name=f"eva-{size}",
        target=TargetOptions(kind="teacher", teacher=CLIP, projected=True),
        loss="cosine",
        train=replace(recipe.train, epochs=400.0),
    )


def eva_recipe(size: Size = "s") -> Recipe:
    """EVA in MAE's form with MFF for a folder of images; any encoder can teach.

    lamina pretrain photos/ --out runs/eva --recipe eva --target.teacher runs/mae
    """
    recipe, published = mae_recipe(size), eva_published(size)
    target = replace(published.target, projected=False)
    return replace(recipe, name="eva", target=target, loss=published.loss)


def eva_tokens_published(size: Size = "b") -> Recipe:
    """EVA as in its paper (arXiv 2211.07636): mask tokens, blockwise at 0.4, a linear head, a teacher's
    features, cosine.

    lamina pretrain images/ --out runs/eva --recipe eva-tokens-b

    The paper's network has a billion parameters and 30 million images; its rates for that: 1e-3 at batch
    4096, betas 0.9 and 0.98, drop path 0.1, 150 epochs. Nothing is published for these sizes.
    """
    return Recipe(
        name=f"eva-tokens-{size}",
        encoder=EncoderOptions(name=TIMM_NAMES[size], hide="replace", weight_init="simmim", drop_path=0.1),
        fusion=PLAIN,
        masking=MaskingOptions(kind="blockwise", mask_ratio=0.4, min_block=16),
        decoder=DecoderOptions(kind="linear"),
        target=TargetOptions(kind="teacher", teacher=CLIP),
        loss="cosine",
        optim=OptimOptions(base_lr=6.25e-5, betas=(0.9, 0.98), weight_decay=0.05, warmup_epochs=2.0),
        train=TrainOptions(epochs=150.0, batch_size=4096),
    )


def eva_tokens_recipe(size: Size = "s") -> Recipe:
    """EVA as in its paper, with MFF, for a folder of images; any encoder can teach.

    lamina pretrain photos/ --out runs/eva --recipe eva-tokens --target.teacher runs/mae
    """
    recipe = for_a_folder(eva_tokens_published(size), "eva-tokens")
    return replace(recipe, optim=replace(recipe.optim, base_lr=2e-4))


def eva(
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
    """EVA's target in MAE's form, as mmpretrain has it: the visible patches encoded, a teacher's features
    decoded, cosine."""
    changes = masking_and_decoder(mask_ratio, decoder_width, decoder_depth, decoder_heads)
    return around(vit, eva_published(), changes, fusion, target, mean, std)


def eva_tokens(
    vit: Network,
    target: Teacher,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.4,
    min_block: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """EVA (Fang et al., CVPR 2023, arXiv 2211.07636): rectangles of mask tokens, a linear head, a teacher's
    features, cosine."""
    changes = {"masking": {"mask_ratio": mask_ratio, "min_block": min_block}}
    return around(vit, eva_tokens_published(), changes, fusion, target, mean, std)
