"""Recipes of detection: ViTDet's on COCO under their names, and one for small images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal

from lamina.core.choices import read_if
from lamina.data.options import DenseDataOptions
from lamina.evaluate.detect.head_options import AttentionOptions, HeadOptions
from lamina.evaluate.detect.windows import DetectWindows
from lamina.evaluate.encoder_options import DenseEncoder
from lamina.evaluate.protocol import chosen_recipe, recipe_named
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

Size = Literal["b", "l", "h"]
_COCO_BATCH = 64
_LAYERS_TRAINED = read_if("encoder.frozen", False, only=("layer_decay",))
_COCO_STEPS = 184_375  # 100 epochs of 118,000 images


@dataclass(frozen=True)
class DetectRecipe:
    """A pyramid with heads, how windows are cut and how it is trained. The encoder is the model's."""

    name: str = "detect-small"
    """The recipe this one started from."""
    encoder: DenseEncoder = field(default_factory=DenseEncoder)
    attention: AttentionOptions = field(default_factory=AttentionOptions)
    head: HeadOptions = field(default_factory=HeadOptions)
    window: DetectWindows = field(default_factory=DetectWindows)
    data: DenseDataOptions = field(default_factory=DenseDataOptions)
    optim: Annotated[OptimOptions, _LAYERS_TRAINED] = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)


def coco_vitdet(size: Size = "b") -> DetectRecipe:
    """ViTDet's Mask R-CNN on COCO (arXiv 2203.16527; detectron2's `projects/ViTDet`), from MAE's weights.

    lamina evaluate detect RUN coco --recipe coco-vitdet-b --out runs/vitdet

    1024 px windows, large-scale jitter from 0.1 to 2, attention within 14 x 14 patches but for four blocks,
    batch 64, 184,375 steps (H: three quarters), the rate dropping tenfold after 163,889 and 177,546; 250
    steps of warm-up, AdamW 1e-4, weight decay 0.1, layer decay 0.7 (L 0.8, H 0.9), drop path 0.1 (L 0.4,
    H 0.5).
    Published box and mask AP: B 51.6 and 45.9, L 55.5 and 49.2, H 56.7 and 50.2; there with relative
    positions, which are not added here. What else differs is in docs/guides/detection.md."""
    decay, drop_path = {"b": (0.7, 0.1), "l": (0.8, 0.4), "h": (0.9, 0.5)}[size]
    return DetectRecipe(
        name=f"coco-vitdet-{size}",
        encoder=DenseEncoder(drop_path=drop_path),
        attention=AttentionOptions(window=14),
        window=DetectWindows(size=(1024, 1024), base=1024, scale=(0.1, 2.0)),
        optim=OptimOptions(
            base_lr=1e-4 * 256 / _COCO_BATCH,
            betas=(0.9, 0.999),
            weight_decay=0.1,
            decay_tokens=False,
            layer_decay=decay,
            warmup_steps=250,
            schedule="multistep",
            milestones=(163_889 / _COCO_STEPS, 177_546 / _COCO_STEPS),
        ),
        train=TrainOptions(
            max_steps=_COCO_STEPS * 3 // 4 if size == "h" else _COCO_STEPS, batch_size=_COCO_BATCH
        ),
    )


def detect_small() -> DetectRecipe:
    """Mask R-CNN with small heads, at the encoder's own image size and with global attention.

    lamina evaluate detect RUN sample:doom
    """
    published = coco_vitdet()
    return replace(
        published,
        name="detect-small",
        attention=AttentionOptions(),
        head=HeadOptions(
            scales=None,
            channels=48,
            anchor_strides=4.0,
            anchor_iou=0.5,
            proposal_convs=1,
            proposals_train=100,
            proposals_test=100,
            anchor_samples=64,
            region_samples=32,
            pool_samples=2,
            box_convs=0,
            box_width=256,
            mask_convs=2,
        ),
        window=DetectWindows(scale=(0.75, 1.5), least_px=16),
        optim=replace(
            published.optim,
            base_lr=1.2e-3 * 256 / 4,
            layer_decay=0.85,
            warmup_steps=100,
            schedule="cosine",
            clip_grad=1.0,
        ),
        train=TrainOptions(max_steps=2500, batch_size=4),
    )


def detect_recipes() -> dict[str, Callable[[], DetectRecipe]]:
    """Every recipe by its name."""
    sizes: tuple[Size, ...] = ("b", "l", "h")
    published = {f"coco-vitdet-{size}": partial(coco_vitdet, size) for size in sizes}
    return {"detect-small": detect_small, **published}


def detect_recipe(name: str | None = None) -> DetectRecipe:
    """The recipe of that name; by default the one for small images. Raises where there is none."""
    return recipe_named(name or "detect-small", detect_recipes())


def recipe_from(protocol: str, fields: Mapping[str, Any]) -> DetectRecipe:
    """The recipe with other fields."""
    return chosen_recipe(protocol, fields, detect_recipe)
