"""MAE: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, arXiv 2111.06377."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.encoder.options import EncoderOptions
from lamina.methods.compose import Statistics, around, for_a_folder, masking_and_decoder
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

if TYPE_CHECKING:
    from lamina.encoder.networks import Network
    from lamina.fusion.build import Fusion
    from lamina.mim import MIM


def mae_published(size: Size = "b") -> Recipe:
    """MAE as published (arXiv 2111.06377, table 8), for ViT-Ti, S, B, L and H.

    lamina pretrain imagenet/train --out runs/mae-b --recipe mae-b

    800 epochs at batch 4096, base_lr 1.5e-4, 40 epochs of warm-up. MFF on MAE (arXiv 2308.00261) is the same
    with `--fusion mff`. Published, ImageNet-1k top-1, fine-tuned / linear: MAE ViT-B 83.3 / 65.1, MFF ViT-B
    83.7 / 68.3 (mmpretrain, 800 epochs, with another crop).
    """
    return Recipe(
        name=f"mae-{size}",
        encoder=EncoderOptions(name=TIMM_NAMES[size]),
        fusion=PLAIN,
        optim=OptimOptions(base_lr=1.5e-4, betas=(0.9, 0.95), weight_decay=0.05, warmup_epochs=40.0),
        train=TrainOptions(epochs=800.0, batch_size=4096),
    )


def mae_recipe(size: Size = "s") -> Recipe:
    """MAE with MFF for a folder of images: sized for one GPU.

    lamina pretrain photos/ --out runs/mff

    100 epochs at batch 256. MFF is Multi-level Feature Fusion; `--fusion none` is the fair twin without it.
    The fusion's logits learn 10 times as fast as the rest, since so short a run could not move them
    otherwise. For the published schedule take mae-b and its siblings.
    """
    return for_a_folder(mae_published(size), "mae")


def mae(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    norm_pix: bool = True,
    low_pass: float | None = None,
    residual_decay: float | None = None,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """Masked Autoencoder (He et al., CVPR 2022, arXiv 2111.06377); with a fusion, MFF on MAE.

    The decoder is initialised as MAE's; `vit` keeps its weights (`lamina.init_vit_mae` initialises them as
    MAE does). With `residual_decay` the encoder's shortcuts fade to that factor (arXiv 2404.10947).
    """
    changes = {
        "encoder": {"residual_decay": residual_decay},
        **masking_and_decoder(mask_ratio, decoder_width, decoder_depth, decoder_heads),
        "target": {"norm_pix": norm_pix, "low_pass": low_pass},
    }
    return around(vit, mae_published(), changes, fusion, mean=mean, std=std)
