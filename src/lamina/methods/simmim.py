"""SimMIM: Xie et al., "SimMIM: A Simple Framework for Masked Image Modeling", CVPR 2022, arXiv 2111.09886."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamina.data.options import DataOptions
from lamina.decoder.options import DecoderOptions
from lamina.encoder.options import EncoderOptions
from lamina.masking.options import MaskingOptions
from lamina.methods.compose import Statistics, around, for_a_folder
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size, beit_encoder
from lamina.targets.options import TargetOptions
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM


def simmim_published(size: Size = "b") -> Recipe:
    """SimMIM (arXiv 2111.09886) on its own ViT, which has relative position biases and layer scale.

    lamina pretrain imagenet/train --out runs/simmim-b --recipe simmim-b

    Masking units of 32 px at 0.6, raw pixels, L1, 800 epochs at batch 2048, rate 1e-4 per 512 images, a drop
    to a tenth after 700 epochs, gradients clipped at 5. Published, ImageNet-1k top-1, fine-tuned: ViT-B 83.8.
    """
    return Recipe(
        name=f"simmim-{size}",
        encoder=beit_encoder(size),
        fusion=PLAIN,
        masking=MaskingOptions(kind="blocks", mask_ratio=0.6, unit_px=28 if size == "h" else 32),
        decoder=DecoderOptions(kind="linear"),
        target=TargetOptions(norm_pix=False),
        loss="l1",
        data=DataOptions(crop_scale=(0.67, 1.0)),
        optim=OptimOptions(
            base_lr=5e-5,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            warmup_epochs=10.0,
            schedule="multistep",
            milestones=(0.875,),
            clip_grad=5.0,
        ),
        train=TrainOptions(epochs=800.0, batch_size=2048),
    )


def simmim_recipe(size: Size = "s") -> Recipe:
    """SimMIM's objective with MFF for a folder of images: a plain ViT, 100 epochs at batch 256, a cosine in
    place of the late drop.

    lamina pretrain photos/ --out runs/simmim --recipe simmim
    """
    recipe = for_a_folder(simmim_published(size), "simmim")
    return replace(
        recipe,
        encoder=EncoderOptions(name=TIMM_NAMES[size], hide="replace", weight_init="simmim"),
        optim=replace(recipe.optim, base_lr=1e-4, schedule="cosine"),
    )


def simmim(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.6,
    unit_px: int = 32,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """SimMIM (Xie et al., CVPR 2022, arXiv 2111.09886): mask tokens in the encoder, a linear head, raw
    pixels, L1."""
    changes = {"masking": {"mask_ratio": mask_ratio, "unit_px": unit_px}}
    return around(vit, simmim_published(), changes, fusion, mean=mean, std=std)
