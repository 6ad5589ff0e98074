"""BEiT: Bao et al., "BEiT: BERT Pre-Training of Image Transformers", ICLR 2022, arXiv 2106.08254."""

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
    from lamina.targets.token_ids import TokenIds


def beit_published(size: Size = "b") -> Recipe:
    """BEiT (arXiv 2106.08254): ids of a discrete tokenizer at 75 of 196 patches, on a ViT with relative
    position biases shared by all blocks, and layer scale.

    lamina pretrain imagenet/train --out runs/beit --recipe beit-b --target.tokenizer encoder.pth

    300 epochs at batch 2048, gradients clipped at 3. Published, ImageNet-1k top-1, fine-tuned: ViT-B 83.1
    (mmpretrain, DALL-E's tokenizer).
    """
    return Recipe(
        name=f"beit-{size}",
        encoder=beit_encoder(size),
        fusion=PLAIN,
        masking=MaskingOptions(kind="blockwise", mask_ratio=75 / 196, min_block=16),
        decoder=DecoderOptions(kind="linear"),
        target=TargetOptions(kind="tokens"),
        loss="cross_entropy",
        data=DataOptions(crop_scale=(0.08, 1.0), jitter=(0.4, 0.4, 0.4, 0.0)),
        optim=OptimOptions(
            base_lr=1.875e-4, betas=(0.9, 0.999), weight_decay=0.05, warmup_epochs=10.0, clip_grad=3.0
        ),
        train=TrainOptions(epochs=300.0, batch_size=2048),
    )


def beit_recipe(size: Size = "s") -> Recipe:
    """BEiT with MFF for a folder of images, on a plain ViT.

    lamina tokenizer train photos/ --out tok
    lamina pretrain photos/ --out runs/beit --recipe beit --target.tokenizer tok
    """
    recipe = for_a_folder(beit_published(size), "beit")
    plain = EncoderOptions(name=TIMM_NAMES[size], hide="replace", weight_init="simmim")
    return replace(recipe, encoder=plain)


def beit(
    vit: Network,
    target: TokenIds,
    fusion: Fusion | None = None,
    mask_ratio: float = 75 / 196,
    min_block: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """BEiT (Bao et al., ICLR 2022, arXiv 2106.08254): rectangles of mask tokens, a linear head, the ids of a
    discrete tokenizer, cross-entropy."""
    changes = {"masking": {"mask_ratio": mask_ratio, "min_block": min_block}}
    return around(vit, beit_published(), changes, fusion, target, mean, std)
