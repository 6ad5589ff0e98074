"""Recipes of the methods that predict pixels."""

from __future__ import annotations

from dataclasses import replace

from lamina.data import DataOptions
from lamina.decoder import DecoderOptions
from lamina.encoder import EncoderOptions
from lamina.masking import MaskingOptions
from lamina.recipes.recipe import PLAIN, TIMM_NAMES, Recipe, Size, beit_encoder
from lamina.targets import TargetOptions
from lamina.train import OptimOptions, TrainOptions


def mae(size: Size = "s") -> Recipe:
    """MAE with MFF for a folder of images: sized for one GPU.

    lamina pretrain photos/ --out runs/mff

    100 epochs at batch 256. MFF is Multi-level Feature Fusion; `--fusion none` is the fair twin without it.
    The fusion's logits learn 10 times as fast as the rest, since so short a run could not move them
    otherwise. For the published schedule take mae-b and its siblings.
    """
    published = mae_published(size)
    return replace(
        published,
        name="mae",
        fusion=replace(published.fusion, kind="mff", logit_lr_scale=10.0),
        optim=replace(published.optim, warmup_epochs=5.0),
        train=replace(published.train, epochs=100.0, batch_size=256),
    )


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


def _pixmim(recipe: Recipe) -> Recipe:
    """PixMIM's two changes to MAE (arXiv 2303.02416): the low-passed target and the simple resized crop."""
    return replace(
        recipe,
        name=recipe.name.replace("mae", "pixmim"),
        target=replace(recipe.target, low_pass=40 / 112),
        data=replace(recipe.data, crop="simple_resized"),
    )


def pixmim(size: Size = "s") -> Recipe:
    """PixMIM with MFF for a folder of images: `mae` with a low-passed target and the simple resized crop.

    lamina pretrain photos/ --out runs/pixmim --recipe pixmim
    """
    return _pixmim(mae(size))


def pixmim_published(size: Size = "b") -> Recipe:
    """PixMIM as published (arXiv 2303.02416), on MAE.

    lamina pretrain imagenet/train --out runs/pixmim-b --recipe pixmim-b

    Published, ImageNet-1k top-1, fine-tuned / linear: ViT-B, 800 epochs, 83.5 / 67.5 (mmselfsup).
    """
    return _pixmim(mae_published(size))


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


def crossmae(size: Size = "s") -> Recipe:
    """CrossMAE with its own mix of layers (not MFF) for a folder of images, on the schedule of `mae`.

    lamina pretrain photos/ --out runs/crossmae --recipe crossmae
    """
    published, plain = crossmae_published(size), mae(size)
    fusion = replace(plain.fusion, kind="mix")
    return replace(plain, name="crossmae", decoder=published.decoder, fusion=fusion)


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


def simmim(size: Size = "s") -> Recipe:
    """SimMIM's objective with MFF for a folder of images: a plain ViT, 100 epochs at batch 256, a cosine in
    place of the late drop.

    lamina pretrain photos/ --out runs/simmim --recipe simmim
    """
    published = simmim_published(size)
    return replace(
        published,
        name="simmim",
        encoder=EncoderOptions(name=TIMM_NAMES[size], hide="replace", start="simmim"),
        fusion=replace(published.fusion, kind="mff", logit_lr_scale=10.0),
        optim=replace(published.optim, base_lr=1e-4, warmup_epochs=5.0, schedule="cosine"),
        train=replace(published.train, epochs=100.0, batch_size=256),
    )


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


def pixio(size: Size = "s") -> Recipe:
    """Pixio's method with MFF for a folder of images, on the schedule of `mae`.

    lamina pretrain photos/ --out runs/pixio --recipe pixio
    """
    published, plain = pixio_published(size), mae(size)
    return replace(
        plain,
        name="pixio",
        encoder=published.encoder,
        masking=published.masking,
        decoder=published.decoder,
    )


def residual_decay_published(size: Size = "b") -> Recipe:
    """MAE whose shortcuts fade with depth (arXiv 2404.10947): alpha falls linearly to 0.6.

    lamina pretrain imagenet/train --out runs/decay-b --recipe residual-decay-b

    Published, ImageNet-1k top-1, linear: ViT-B 72.7, where MAE has 67.8.
    """
    recipe = mae_published(size)
    return replace(
        recipe,
        name=f"residual-decay-{size}",
        encoder=replace(recipe.encoder, residual_decay=0.6, zero_branches=True),
    )


def residual_decay(size: Size = "s") -> Recipe:
    """Residual decay with MFF for a folder of images: `mae` with shortcuts that fade to 0.6.

    lamina pretrain photos/ --out runs/decay --recipe residual-decay
    """
    recipe = mae(size)
    return replace(
        recipe, name="residual-decay", encoder=replace(recipe.encoder, residual_decay=0.6, zero_branches=True)
    )
