"""MaskFeat: Wei et al., "Masked Feature Prediction for Self-Supervised Visual Pre-Training", arXiv
2112.09133.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.data.options import DataOptions
from lamina.decoder.options import DecoderOptions
from lamina.encoder.options import EncoderOptions
from lamina.masking.options import MaskingOptions
from lamina.methods.compose import Statistics, around, for_a_folder
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size
from lamina.targets.options import TargetOptions
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM


def maskfeat_published(size: Size = "b") -> Recipe:
    """MaskFeat as in mmpretrain (arXiv 2112.09133): histograms of gradients at 78 of 196 patches.

    lamina pretrain imagenet/train --out runs/maskfeat-b --recipe maskfeat-b

    300 epochs at batch 2048, 30 of them warm-up, gradients clipped at 0.02. Published, ImageNet-1k top-1,
    fine-tuned: ViT-B 83.4 (mmpretrain, 300 epochs), 84.0 (1600 epochs).
    """
    return Recipe(
        name=f"maskfeat-{size}",
        encoder=EncoderOptions(name=TIMM_NAMES[size], hide="replace", weight_init="timm"),
        fusion=PLAIN,
        masking=MaskingOptions(kind="blockwise", mask_ratio=0.4, min_block=15),
        decoder=DecoderOptions(kind="linear"),
        target=TargetOptions(kind="hog", hog_cell_px=7 if size == "h" else 8),
        data=DataOptions(crop_scale=(0.5, 1.0)),
        optim=OptimOptions(
            base_lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05, warmup_epochs=30.0, clip_grad=0.02
        ),
        train=TrainOptions(epochs=300.0, batch_size=2048),
    )


def maskfeat_recipe(size: Size = "s") -> Recipe:
    """MaskFeat with MFF for a folder of images.

    lamina pretrain photos/ --out runs/maskfeat --recipe maskfeat
    """
    return for_a_folder(maskfeat_published(size), "maskfeat")


def maskfeat(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.4,
    min_block: int = 15,
    cell_px: int = 8,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """MaskFeat (Wei et al., CVPR 2022, arXiv 2112.09133): rectangles of mask tokens, a linear head,
    histograms of oriented gradients, L2."""
    changes = {
        "masking": {"mask_ratio": mask_ratio, "min_block": min_block},
        "target": {"hog_cell_px": cell_px},
    }
    return around(vit, maskfeat_published(), changes, fusion, mean=mean, std=std)
