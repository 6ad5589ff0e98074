"""Recipes: functions that return one frozen, typed value with everything a run depends on.

A pair with and without MFF is one recipe with another `fusion.kind` and nothing else changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from lamina.data import DataOptions
from lamina.decoder import DecoderOptions
from lamina.encoder import EncoderOptions
from lamina.errors import LaminaError
from lamina.fusion import FusionOptions
from lamina.losses import LossName
from lamina.masking import MaskingOptions
from lamina.targets import TargetOptions
from lamina.train import OptimOptions, TrainOptions

Size = Literal["ti", "s", "b", "l", "h"]

_TIMM_NAMES: dict[Size, str] = {
    "ti": "vit_tiny_patch16_224",
    "s": "vit_small_patch16_224",
    "b": "vit_base_patch16_224",
    "l": "vit_large_patch16_224",
    "h": "vit_huge_patch14_224",
}


@dataclass(frozen=True)
class Recipe:
    """A method, its data and its schedule."""

    name: str = "mae"
    """The recipe this one started from."""
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    fusion: FusionOptions = field(default_factory=FusionOptions)
    masking: MaskingOptions = field(default_factory=MaskingOptions)
    decoder: DecoderOptions = field(default_factory=DecoderOptions)
    target: TargetOptions = field(default_factory=TargetOptions)
    loss: LossName = "mse"
    """mse (MAE) or l1 (SimMIM), over the predicted patches."""
    data: DataOptions = field(default_factory=DataOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)


def mae(size: Size = "s") -> Recipe:
    """MAE for a folder of images: the published method, sized for one GPU.

    lamina pretrain photos/ --out runs/mff

    100 epochs at batch 256; the fusion's logits learn 10 times as fast as the rest, since so short a run
    could not move them otherwise. For the published schedule take mae-b and its siblings.
    """
    published = mae_published(size)
    return replace(
        published,
        name="mae",
        fusion=replace(published.fusion, logit_lr_scale=10.0),
        optim=replace(published.optim, warmup_epochs=5.0),
        train=replace(published.train, epochs=100.0, batch_size=256),
    )


def mae_published(size: Size = "b") -> Recipe:
    """MAE as published (arXiv 2111.06377, table 8), for ViT-Ti, S, B, L and H; with fusion, MFF on MAE.

    lamina pretrain imagenet/train --out runs/mae-b --recipe mae-b --fusion none

    800 epochs at batch 4096, base_lr 1.5e-4, 40 epochs of warm-up. Published, ImageNet-1k top-1, fine-tuned /
    linear: MAE ViT-B 83.3 / 65.1, MFF ViT-B 83.7 / 68.3 (mmpretrain, 800 epochs, with another crop).
    """
    return Recipe(
        name=f"mae-{size}",
        encoder=EncoderOptions(name=_TIMM_NAMES[size]),
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
    """PixMIM for a folder of images: `mae` with a low-passed target and the simple resized crop.

    lamina pretrain photos/ --out runs/pixmim --recipe pixmim
    """
    return _pixmim(mae(size))


def pixmim_published(size: Size = "b") -> Recipe:
    """PixMIM as published (arXiv 2303.02416), on MAE.

    lamina pretrain imagenet/train --out runs/pixmim-b --recipe pixmim-b --fusion none

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
    """CrossMAE for a folder of images: the published method on the schedule of `mae`.

    lamina pretrain photos/ --out runs/crossmae --recipe crossmae
    """
    published, plain = crossmae_published(size), mae(size)
    fusion = replace(plain.fusion, kind="mix")
    return replace(plain, name="crossmae", decoder=published.decoder, fusion=fusion)


def simmim_published(size: Size = "b") -> Recipe:
    """SimMIM's objective (arXiv 2111.09886) on a plain ViT with fixed positions.

    lamina pretrain imagenet/train --out runs/simmim-b --recipe simmim-b --fusion none

    Masking units of 32 px at 0.6, raw pixels, L1, 800 epochs at batch 2048, rate 1e-4 per 512 images, a drop
    to a tenth after 700 epochs, gradients clipped at 5. Published for its own ViT-B, which has relative
    position biases and layer scale, 83.8 fine-tuned: not comparable with this ViT.
    """
    return Recipe(
        name=f"simmim-{size}",
        encoder=EncoderOptions(name=_TIMM_NAMES[size], hide="replace", start="simmim", drop_path=0.1),
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
    """SimMIM's objective for a folder of images: 100 epochs at batch 256, a cosine in place of the late drop.

    lamina pretrain photos/ --out runs/simmim --recipe simmim
    """
    published = simmim_published(size)
    return replace(
        published,
        name="simmim",
        encoder=replace(published.encoder, drop_path=0.0),
        fusion=replace(published.fusion, logit_lr_scale=10.0),
        optim=replace(published.optim, base_lr=1e-4, warmup_epochs=5.0, schedule="cosine"),
        train=replace(published.train, epochs=100.0, batch_size=256),
    )


def small(recipe: Recipe) -> Recipe:
    """The same method for small images: 64 px, patch 8, an encoder of 192 x 12, a decoder of 128 x 4.

    lamina pretrain tiles/ --out runs/tiles --recipe mae-small
    """
    encoder = replace(recipe.encoder, name="vit_tiny_patch16_224", image_size=(64, 64), patch_size=8)
    return replace(
        recipe,
        name=f"{recipe.name}-small",
        encoder=encoder,
        decoder=replace(recipe.decoder, width=128, depth=4, heads=4),
        masking=replace(recipe.masking, unit_px=16),
        data=replace(recipe.data, eval_crop_share=1.0),
        optim=replace(recipe.optim, base_lr=1e-3),
    )


def _small(build: Callable[[], Recipe]) -> Recipe:
    return small(build())


def demo() -> Recipe:
    """What `make demo` runs: a small ViT with MFF on crops of real photographs, in minutes on two cores.

    lamina demo
    """
    recipe = small(mae())
    return replace(
        recipe,
        name="demo",
        encoder=replace(recipe.encoder, image_size=(24, 24), patch_size=4, width=96, depth=6, heads=3),
        decoder=replace(recipe.decoder, width=64, depth=4, heads=4),
        fusion=replace(recipe.fusion, layers="all", logit_lr_scale=30.0),
        optim=replace(recipe.optim, warmup_epochs=2.0),
        train=replace(recipe.train, epochs=30.0, batch_size=64),
    )


def recipes() -> dict[str, Callable[[], Recipe]]:
    """Every recipe by its name."""
    sizes: tuple[Size, ...] = ("ti", "s", "b", "l", "h")
    published = {
        "mae": mae_published,
        "pixmim": pixmim_published,
        "simmim": simmim_published,
        "crossmae": crossmae_published,
    }
    plain: dict[str, Callable[[], Recipe]] = {
        "mae": mae,
        "pixmim": pixmim,
        "simmim": simmim,
        "crossmae": crossmae,
    }
    shrunk = {f"{name}-small": partial(_small, build) for name, build in plain.items()}
    sized = {f"{name}-{size}": partial(build, size) for name, build in published.items() for size in sizes}
    return {**plain, **shrunk, **sized, "demo": demo}


def recipe(name: str) -> Recipe:
    """The recipe of that name; raises with the names there are."""
    known = recipes()
    if name not in known:
        raise LaminaError(f"there is no recipe {name!r}; choose one of: {', '.join(known)}")
    return known[name]()
