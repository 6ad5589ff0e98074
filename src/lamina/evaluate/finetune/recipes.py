"""Recipes of the protocols that train on labels from a pre-trained encoder: fine-tuning and probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.data.options import AugmentOptions
from lamina.evaluate.encoder_options import FinetuneEncoder
from lamina.evaluate.protocol import chosen_recipe
from lamina.fusion.options import FusionOptions
from lamina.recipes.recipe import PLAIN, MonitorOptions, Size, TeacherOptions
from lamina.supervised.options import SupervisedOptions
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

_ENCODER_TRAINED = read_if("supervised.frozen", False, only=("drop_path", "activation_checkpointing"))
_LAYERS_TRAINED = read_if("supervised.frozen", False, only=("layer_decay",))


@dataclass(frozen=True)
class FinetuneRecipe:
    """A classifier on a model's encoder, how its images are augmented and how it is trained.

    The network, its normalisation and how files become images are the model's.
    """

    name: str = "finetune"
    """The recipe this one started from."""
    encoder: Annotated[FinetuneEncoder, _ENCODER_TRAINED] = field(default_factory=FinetuneEncoder)
    fusion: FusionOptions = PLAIN
    supervised: SupervisedOptions = field(default_factory=SupervisedOptions)
    labels: TeacherOptions = field(default_factory=TeacherOptions)
    data: AugmentOptions = field(default_factory=AugmentOptions)
    optim: Annotated[OptimOptions, _LAYERS_TRAINED] = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    monitor: MonitorOptions = field(default_factory=MonitorOptions)


def finetune_published(size: Size = "b") -> FinetuneRecipe:
    """MAE's end-to-end fine-tuning (arXiv 2111.06377) as FINETUNE.md of its code has it.

    lamina evaluate finetune RUN imagenet --out runs/finetuned --recipe finetune-b

    AdamW, batch 1024, layer decay 0.65 (L, H: 0.75), drop path 0.1 (L: 0.2, H: 0.3), 100 epochs (L, H: 50),
    mean of the patches behind a norm of its own. S has B's values, as in CrossMAE; nothing is published for
    Ti. Published, ImageNet-1k top-1: MAE B 83.6, L 85.9, H 86.9 (1600 epochs); MFF B 83.7 (800 epochs)."""
    large = size in ("l", "h")
    return FinetuneRecipe(
        name=f"finetune-{size}",
        encoder=FinetuneEncoder(drop_path={"l": 0.2, "h": 0.3}.get(size, 0.1)),
        supervised=SupervisedOptions(pool="mean", neck="layer", head_std=2e-5),
        data=AugmentOptions(crop_scale=(0.08, 1.0), auto_augment="rand-m9-mstd0.5-inc1", erase=0.25),
        optim=OptimOptions(
            base_lr=1e-3 if large else 5e-4,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            decay_tokens=False,
            layer_decay=0.75 if large else 0.65,
            warmup_epochs=5.0,
            min_lr=1e-6,
        ),
        train=TrainOptions(epochs=50.0 if large else 100.0, batch_size=1024),
    )


def finetune(size: Size = "b") -> FinetuneRecipe:
    """Fine-tuning for a folder of images: MAE's, at a batch of 256 and without a fixed size of network.

    lamina evaluate finetune RUN labelled/ --out runs/finetuned
    """
    published = finetune_published(size)
    return replace(published, name="finetune", train=replace(published.train, batch_size=256))


def finetune_small() -> FinetuneRecipe:
    """Fine-tuning for small networks, small images and a few thousand labels, ours.

    lamina evaluate finetune RUN sample:fashion-mnist --recipe finetune-small

    20 epochs at batch 32, a rate of 2e-3 and layer decay 0.75; mild crops, no drop path, mixing, erasing or
    RandAugment; a batch norm before the head, as MAE's linear probe has. The numbers are from a few
    trials with one run on Fashion-MNIST."""
    published = finetune_published()
    return replace(
        published,
        name="finetune-small",
        encoder=replace(published.encoder, drop_path=0.0),
        supervised=replace(published.supervised, neck="batch", head_std=0.01, mixup=0.0, cutmix=0.0),
        data=replace(published.data, crop_scale=(0.8, 1.0), auto_augment=None, erase=0.0),
        optim=replace(published.optim, base_lr=1.6e-2, layer_decay=0.75, warmup_epochs=1.0),
        train=TrainOptions(epochs=20.0, batch_size=32),
    )


def linear_mae_published(size: Size = "b") -> FinetuneRecipe:
    """MAE's linear probe (arXiv 2111.06377, table 10): LARS on batch-normed class tokens, random crops.

    lamina evaluate linear-mae RUN imagenet --out runs/probed --recipe linear-mae-b

    90 epochs (L, H: 50) at batch 16384, 512 images at a time for the batch norm, rate 0.1 for 256 images, no
    weight decay. Published, ImageNet-1k top-1: MAE B 68.0, L 75.8, H 76.6 (1600 epochs); MFF B 68.3
    (mmpretrain, 800 epochs).
    """
    return FinetuneRecipe(
        name=f"linear-mae-{size}",
        supervised=SupervisedOptions(
            neck="batch", head_std=0.01, frozen=True, mixup=0.0, cutmix=0.0, smoothing=0.0
        ),
        data=AugmentOptions(crop_scale=(0.08, 1.0)),
        optim=OptimOptions(kind="lars", base_lr=0.1, weight_decay=0.0, warmup_epochs=10.0),
        train=TrainOptions(
            epochs=50.0 if size in ("l", "h") else 90.0, batch_size=16384, micro_batch_size=512
        ),
    )


def attentive(size: Size = "b") -> FinetuneRecipe:
    """An attentive probe: one learned query attends to the patches of the frozen encoder, then one matrix.

    lamina evaluate attentive RUN labelled/ --out runs/attentive

    AdamW, 20 epochs of random crops at batch 256. Rates and length are ours: published attentive probes
    (CAPI, V-JEPA, AIM) sweep them."""
    published = linear_mae_published(size)
    return replace(
        published,
        name="attentive",
        supervised=replace(published.supervised, pool="attentive"),
        optim=OptimOptions(base_lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, warmup_epochs=2.0),
        train=TrainOptions(epochs=20.0, batch_size=256),
    )


def finetune_recipes() -> dict[str, Callable[[], FinetuneRecipe]]:
    """Every recipe of fine-tuning and of both probes, by its name."""
    sizes: tuple[Size, ...] = ("ti", "s", "b", "l", "h")
    published = {"finetune": finetune_published, "linear-mae": linear_mae_published}
    sized = {f"{name}-{size}": partial(build, size) for name, build in published.items() for size in sizes}
    return {
        "finetune": finetune,
        "finetune-small": finetune_small,
        "linear-mae": linear_mae_published,
        "attentive": attentive,
        **sized,
    }


def recipe_of(protocol: str, name: str) -> FinetuneRecipe:
    """The recipe of that name.

    Raises:
        LaminaError: where there is none, or it is of another protocol.
    """
    known = {each: build for each, build in finetune_recipes().items() if each.startswith(protocol)}
    if name not in known:
        raise LaminaError(f"there is no recipe {name!r} of {protocol}; choose one of {', '.join(known)}")
    return known[name]()


def recipe_from(protocol: str, fields: Mapping[str, Any]) -> FinetuneRecipe:
    """The recipe of a protocol with other fields, whichever size is the published one."""
    return chosen_recipe(
        protocol, fields, lambda name: recipe_of(protocol, protocol if name is None else name)
    )
