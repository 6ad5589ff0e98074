"""Recipes of the methods that predict what another function or network makes of the image."""

from __future__ import annotations

from dataclasses import replace

from lamina.data import DataOptions
from lamina.decoder import DecoderOptions
from lamina.encoder import EncoderOptions
from lamina.masking import MaskingOptions
from lamina.recipes.pixels import mae, mae_published
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size, beit_encoder
from lamina.targets import TargetOptions
from lamina.train import OptimOptions, TrainOptions

CLIP = "timm/vit_base_patch16_clip_224.openai"


def for_a_folder(published: Recipe, name: str) -> Recipe:
    """A published recipe with MFF: 100 epochs of batch 256, 5 of them warm-up, no stochastic depth."""
    return replace(
        published,
        name=name,
        encoder=replace(published.encoder, drop_path=0.0),
        fusion=replace(published.fusion, kind="mff", logit_lr_scale=10.0),
        optim=replace(published.optim, warmup_epochs=5.0),
        train=replace(published.train, epochs=100.0, batch_size=256),
    )


def maskfeat_published(size: Size = "b") -> Recipe:
    """MaskFeat as in mmpretrain (arXiv 2112.09133): histograms of gradients at 78 of 196 patches.

    lamina pretrain imagenet/train --out runs/maskfeat-b --recipe maskfeat-b

    300 epochs at batch 2048, 30 of them warm-up, gradients clipped at 0.02. Published, ImageNet-1k top-1,
    fine-tuned: ViT-B 83.4 (mmpretrain, 300 epochs), 84.0 (1600 epochs).
    """
    return Recipe(
        name=f"maskfeat-{size}",
        encoder=EncoderOptions(name=TIMM_NAMES[size], hide="replace", start="timm"),
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


def maskfeat(size: Size = "s") -> Recipe:
    """MaskFeat with MFF for a folder of images.

    lamina pretrain photos/ --out runs/maskfeat --recipe maskfeat
    """
    return for_a_folder(maskfeat_published(size), "maskfeat")


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


def beit(size: Size = "s") -> Recipe:
    """BEiT with MFF for a folder of images, on a plain ViT.

    lamina tokenizer train photos/ --out tok
    lamina pretrain photos/ --out runs/beit --recipe beit --target.tokenizer tok
    """
    recipe = for_a_folder(beit_published(size), "beit")
    plain = EncoderOptions(name=TIMM_NAMES[size], hide="replace", start="simmim")
    return replace(recipe, encoder=plain)


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


def eva(size: Size = "s") -> Recipe:
    """EVA in MAE's form with MFF for a folder of images; any encoder can teach.

    lamina pretrain photos/ --out runs/eva --recipe eva --target.teacher runs/mae
    """
    recipe, published = mae(size), eva_published(size)
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
        encoder=EncoderOptions(name=TIMM_NAMES[size], hide="replace", start="simmim", drop_path=0.1),
        fusion=PLAIN,
        masking=MaskingOptions(kind="blockwise", mask_ratio=0.4, min_block=16),
        decoder=DecoderOptions(kind="linear"),
        target=TargetOptions(kind="teacher", teacher=CLIP),
        loss="cosine",
        optim=OptimOptions(base_lr=6.25e-5, betas=(0.9, 0.98), weight_decay=0.05, warmup_epochs=2.0),
        train=TrainOptions(epochs=150.0, batch_size=4096),
    )


def eva_tokens(size: Size = "s") -> Recipe:
    """EVA as in its paper, with MFF, for a folder of images; any encoder can teach.

    lamina pretrain photos/ --out runs/eva --recipe eva-tokens --target.teacher runs/mae
    """
    recipe = for_a_folder(eva_tokens_published(size), "eva-tokens")
    return replace(recipe, optim=replace(recipe.optim, base_lr=2e-4))


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


def milan(size: Size = "s") -> Recipe:
    """MILAN with MFF for a folder of images; any encoder with a class token can teach.

    lamina pretrain photos/ --out runs/milan --recipe milan --target.teacher timm/vit_small_patch16_224.dino
    """
    recipe, published = eva(size), milan_published(size)
    return replace(recipe, name="milan", masking=published.masking, decoder=published.decoder)
