"""DeiT: Touvron et al., "Training data-efficient image transformers", arXiv 2012.12877."""

from __future__ import annotations

from dataclasses import replace

from lamina.data.options import DataOptions
from lamina.encoder.options import EncoderOptions
from lamina.methods.compose import for_a_folder
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions


def deit_published(size: Size = "b") -> Recipe:
    """DeiT (arXiv 2012.12877) as in mmpretrain: no mask, labels, timm's RandAugment, erasing, mixup, cutmix.

    lamina pretrain imagenet --out runs/deit-b --recipe deit-b

    300 epochs at batch 1024, 20 of them warm-up. Published, ImageNet-1k top-1: Ti 74.5, S 80.7, B 81.8
    (mmpretrain). Repeated augmentation, which the paper has, is left out.
    """
    return Recipe(
        name=f"deit-{size}",
        method="supervised",
        encoder=EncoderOptions(name=TIMM_NAMES[size], weight_init="timm", drop_path=0.1),
        fusion=PLAIN,
        data=DataOptions(crop_scale=(0.08, 1.0), auto_augment="rand-m9-mstd0.5-inc1", erase=0.25),
        loss="cross_entropy",
        optim=OptimOptions(
            base_lr=2.5e-4,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            warmup_epochs=20.0,
            min_lr=1e-5,
            clip_grad=5.0,
        ),
        train=TrainOptions(epochs=300.0, batch_size=1024),
    )


def deit_recipe(size: Size = "s") -> Recipe:
    """Supervised training (DeiT) with MFF before the head, on a labelled folder.

    lamina pretrain labelled/ --out runs/deit --recipe deit
    """
    published = deit_published(size)
    return replace(for_a_folder(published, "deit"), encoder=published.encoder)
