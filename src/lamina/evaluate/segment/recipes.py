"""Recipes of segmentation: the published protocols under their names, and the same heads for small images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any, Literal, get_args

from lamina.core.choices import read_if
from lamina.core.config import did_you_mean
from lamina.core.errors import LaminaError
from lamina.data.options import DenseDataOptions
from lamina.evaluate.encoder_options import DenseEncoder
from lamina.evaluate.protocol import chosen_recipe, recipe_named
from lamina.evaluate.segment.head_options import DPTOptions, KNNHeadOptions, LinearHeadOptions, UperOptions
from lamina.evaluate.segment.window_options import SegmentWindows
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

HeadKind = Literal["linear", "upernet", "dpt", "knn"]
_ADE20K_BATCH = 16
_TRAINED_HEADS = ("linear", "upernet", "dpt")
_TRAINED = read_if("head", *_TRAINED_HEADS)
_WINDOWS_TRAINED = read_if("head", *_TRAINED_HEADS, only=("scale", "max_class_share", "flip"))
_COLOURS_TRAINED = read_if("head", *_TRAINED_HEADS, only=("jitter",))
_LAYERS_TRAINED = read_if("encoder.frozen", False, only=("layer_decay",))
_SCHEDULE_TRAINED = read_if("head", *_TRAINED_HEADS, but=("batch_size", "device", "seed"))


@dataclass(frozen=True)
class SegmentRecipe:
    """A head, how windows are cut and how it is trained. The encoder is the model's."""

    name: str = "linear-small"
    """The recipe this one started from."""
    head: HeadKind = "linear"
    """linear and knn evaluate frozen features; upernet and dpt are trained with the encoder."""
    encoder: Annotated[DenseEncoder, _TRAINED] = field(default_factory=DenseEncoder)
    linear: Annotated[LinearHeadOptions, read_if("head", "linear")] = field(default_factory=LinearHeadOptions)
    uper: Annotated[UperOptions, read_if("head", "upernet")] = field(default_factory=UperOptions)
    dpt: Annotated[DPTOptions, read_if("head", "dpt")] = field(default_factory=DPTOptions)
    knn: Annotated[KNNHeadOptions, read_if("head", "knn")] = field(default_factory=KNNHeadOptions)
    window: Annotated[SegmentWindows, _WINDOWS_TRAINED] = field(default_factory=SegmentWindows)
    data: Annotated[DenseDataOptions, _COLOURS_TRAINED] = field(default_factory=DenseDataOptions)
    optim: Annotated[OptimOptions, _TRAINED, _LAYERS_TRAINED] = field(default_factory=OptimOptions)
    train: Annotated[TrainOptions, _SCHEDULE_TRAINED] = field(default_factory=TrainOptions)

    @property
    def trains(self) -> bool:
        """Whether there is something to train."""
        return self.head != "knn"


def ade20k_upernet() -> SegmentRecipe:
    """UperNet as MAE's paper reports ADE20K: the encoder is trained with it.

    lamina evaluate segment RUN ADEChallengeData2016 --recipe ade20k-upernet --out runs/upernet

    512 px windows, 160,000 steps at batch 16, AdamW 1e-4, weight decay 0.05, layer decay 0.65, 1,500 steps of
    warm-up, linear to 0; drop path 0.1, blocks 3 5 7 11, 768 channels, auxiliary loss 0.4; tested by windows
    341 px apart (implus/mae_segmentation; mmsegmentation's `configs/mae` has 256). Published for MAE ViT-B,
    1600 epochs: 48.1 mIoU; there with relative position biases and layer scale, which start anew in
    fine-tuning and are not added here."""
    return SegmentRecipe(
        name="ade20k-upernet",
        head="upernet",
        encoder=DenseEncoder(drop_path=0.1),
        window=_ade20k_windows(),
        data=_photometric(),
        optim=OptimOptions(
            base_lr=1e-4 * 256 / _ADE20K_BATCH,
            betas=(0.9, 0.999),
            weight_decay=0.05,
            decay_tokens=False,
            layer_decay=0.65,
            schedule="poly",
            warmup_steps=1500,
        ),
        train=TrainOptions(max_steps=160_000, batch_size=_ADE20K_BATCH),
    )


def ade20k_dpt() -> SegmentRecipe:
    """DPT as mmsegmentation trains it on ADE20K, the encoder with it.

    lamina evaluate segment RUN ADEChallengeData2016 --recipe ade20k-dpt --out runs/dpt

    As `ade20k-upernet`, but AdamW 6e-5, weight decay 0.01, no layer decay, no drop path, no auxiliary head
    (mmsegmentation's `configs/dpt`, which tests whole images). Published there for a ViT-B that was trained
    on ImageNet-21k's labels: 46.97 mIoU."""
    published = ade20k_upernet()
    return replace(
        published,
        name="ade20k-dpt",
        head="dpt",
        encoder=DenseEncoder(),
        optim=replace(
            published.optim, base_lr=6e-5 * 256 / _ADE20K_BATCH, weight_decay=0.01, layer_decay=None
        ),
    )


def ade20k_linear() -> SegmentRecipe:
    """DINOv3's linear segmentation on frozen features.

    lamina evaluate segment RUN ADEChallengeData2016 --recipe ade20k-linear --out runs/linear

    Batch norm, dropout 0.1 and a matrix on the last block; 512 px windows, 40,000 steps at batch 16, AdamW
    1e-3, weight decay 1e-3, 1,500 steps of warm-up and half a cosine; no colour jitter, nothing against
    windows of one class; tested by windows 341 px apart. DINOv2's differs in the weight decay (1e-4), the
    schedule (linear) and colour jitter, and has no dropout."""
    published = ade20k_upernet()
    return replace(
        published,
        name="ade20k-linear",
        head="linear",
        encoder=DenseEncoder(frozen=True),
        window=replace(_ade20k_windows(), max_class_share=1.0),
        data=DenseDataOptions(),
        optim=OptimOptions(
            base_lr=1e-3 * 256 / _ADE20K_BATCH, betas=(0.9, 0.999), weight_decay=1e-3, warmup_steps=1500
        ),
        train=TrainOptions(max_steps=40_000, batch_size=_ADE20K_BATCH),
    )


def ade20k_knn() -> SegmentRecipe:
    """kNN segmentation of frozen patches, after CAPI.

    lamina evaluate segment RUN ADEChallengeData2016 --recipe ade20k-knn --out runs/knn

    Cosine of standardised features, k of 1, 3, 10, 30 on a tenth of the training images. CAPI (29.2 to 35.2
    mIoU for its ViT-L) looks at whole images squeezed to 224 px and remembers every training patch; here
    windows are 512 px and 100,000 patches are remembered."""
    return replace(ade20k_linear(), name="ade20k-knn", head="knn")


def linear_small() -> SegmentRecipe:
    """A linear head on frozen features, at the encoder's own image size.

    lamina evaluate segment RUN sample:doom --head linear

    1,000 steps at batch 16; whole images from three quarters to one and a half of the window."""
    published = ade20k_linear()
    return replace(
        published,
        name="linear-small",
        window=SegmentWindows(scale=(0.75, 1.5), max_class_share=1.0),
        optim=replace(published.optim, warmup_steps=50),
        train=TrainOptions(max_steps=1000, batch_size=_ADE20K_BATCH),
    )


def upernet_small() -> SegmentRecipe:
    """UperNet of 128 channels with the encoder, at the encoder's own image size.

    lamina evaluate segment RUN sample:doom --head upernet
    """
    published = ade20k_upernet()
    small = linear_small()
    return replace(
        published,
        name="upernet-small",
        window=replace(small.window, max_class_share=0.75),
        uper=UperOptions(channels=128, aux_channels=64),
        optim=replace(published.optim, base_lr=5e-4 * 256 / _ADE20K_BATCH, warmup_steps=100),
        train=replace(small.train, max_steps=2000),
    )


def dpt_small() -> SegmentRecipe:
    """DPT of 64 channels with the encoder, at the encoder's own image size.

    lamina evaluate segment RUN sample:doom --head dpt
    """
    small = upernet_small()
    return replace(small, name="dpt-small", head="dpt", dpt=DPTOptions(channels=64))


def knn_small() -> SegmentRecipe:
    """kNN segmentation of frozen patches, at the encoder's own image size.

    lamina evaluate segment RUN sample:doom --head knn

    50,000 patches of 1,000 images."""
    small = linear_small()
    return replace(small, name="knn-small", head="knn", knn=KNNHeadOptions(images=1000, patches=50_000))


def segment_recipes() -> dict[str, Callable[[], SegmentRecipe]]:
    """Every recipe by its name."""
    return {
        "linear-small": linear_small,
        "upernet-small": upernet_small,
        "dpt-small": dpt_small,
        "knn-small": knn_small,
        "ade20k-linear": ade20k_linear,
        "ade20k-upernet": ade20k_upernet,
        "ade20k-dpt": ade20k_dpt,
        "ade20k-knn": ade20k_knn,
    }


def segment_recipe(name: str | None = None, head: str | None = None) -> SegmentRecipe:
    """The recipe of that name, or the one for small images of that head; by default the linear one.

    Raises:
        LaminaError: where there is none, or it is of another head than the requested one.
    """
    heads = get_args(HeadKind)
    if head is not None and head not in heads:
        near = did_you_mean(head, heads)
        raise LaminaError(f"there is no head {head!r}; {near}there are: {', '.join(heads)}")
    wanted = name or f"{head or 'linear'}-small"
    found = recipe_named(wanted, segment_recipes())
    if head is not None and found.head != head:
        raise LaminaError(f"the recipe {wanted} has the head {found.head}, not {head}; leave out one of them")
    return found


def recipe_from(protocol: str, fields: Mapping[str, Any]) -> SegmentRecipe:
    """The recipe with other fields; a head without the name of a recipe has the one for small images."""
    return chosen_recipe(protocol, fields, partial(segment_recipe, head=fields.get("head")))


def _ade20k_windows() -> SegmentWindows:
    return SegmentWindows(size=(512, 512), base=512, stride=(341, 341))


def _photometric() -> DenseDataOptions:
    """Colours changed as far as mmsegmentation's PhotoMetricDistortion changes them; there each of the four
    in every other image, and brightness by adding."""
    return DenseDataOptions(jitter=(0.125, 0.5, 0.5, 0.1))
