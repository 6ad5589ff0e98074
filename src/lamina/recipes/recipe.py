"""What a run depends on: one frozen, typed value.

A pair with and without MFF is one recipe with another `fusion.kind` and nothing else changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lamina.cmae.options import CMAEOptions
from lamina.core.choices import read_if, read_unless
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, check_ranges
from lamina.data.options import DataOptions
from lamina.decoder.options import DecoderOptions
from lamina.encoder.options import EncoderOptions
from lamina.fusion.options import FusionOptions
from lamina.masking.options import MaskingOptions
from lamina.supervised.options import SupervisedOptions
from lamina.targets.options import TargetOptions
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions


@dataclass(frozen=True)
class MonitorOptions:
    """Online evaluation of the encoder during pre-training (RankMe, kNN); the weights do not depend on it."""

    images: Annotated[int | None, NOT_NEGATIVE] = None
    """Number of images that each online evaluation uses for RankMe and, where they have labels, for kNN. They
    are drawn as `lamina analyze` does, from the held-out part where the data have one. Unset: 256, or all
    where there are fewer. 0: no evaluation."""
    knn_data: Annotated[str | None, read_unless("images", 0)] = None
    """Labelled images for the kNN evaluation, as many as monitor.images. Unset: the run's own images, where
    they have labels."""
    every_steps: Annotated[int | None, COUNT, read_unless("images", 0)] = None
    """Number of steps between two evaluations. Unset: as often as fits into 0.5 % of the training time
    (`lamina.callbacks.encoder_monitor.interval`)."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if self.images == 1:
            raise LaminaError(f"monitor.images is {self.images}; give 2 or more, or 0 for none")
        if self.knn_data is not None and self.images == 0:
            raise LaminaError("monitor.knn_data has no effect with monitor.images 0; leave one of them out")


@dataclass(frozen=True)
class TeacherOptions:
    """A teacher for distillation."""

    teacher: str | None = None
    """Teacher whose decisions the distillation token learns: a supervised run, or timm/NAME of a classifier
    with as many classes (timm's deit_*_distilled networks have such a token). Unset: no teacher."""


@dataclass(frozen=True)
class LabelOptions(TeacherOptions):
    """Labels of supervised training: the teacher, and the classes."""

    classes: tuple[str, ...] = ()
    """Names of the classes. They are filled in from the data."""
    several: bool = False
    """Whether an image may have several of the classes, or none: the loss is binary cross-entropy then. It is
    filled in from the data."""
    teacher_sha256: str | None = None
    """SHA-256 of the teacher's weights. It is filled in when the teacher is opened."""


LossName = Literal["mse", "l1", "cosine", "cross_entropy"]
Size = Literal["ti", "s", "b", "l", "h"]

TIMM_NAMES: dict[Size, str] = {
    "ti": "vit_tiny_patch16_224",
    "s": "vit_small_patch16_224",
    "b": "vit_base_patch16_224",
    "l": "vit_large_patch16_224",
    "h": "vit_huge_patch14_224",
}


PLAIN = FusionOptions(kind="none")
"""The fusion of methods as they are published: the last layer alone. MFF on them is `--fusion mff`."""

_MASKED = read_if("method", "mim", "cmae")
_LABELS = read_if("method", "supervised")
_HIDES = read_if("method", "mim", "cmae", only=("hide",))
_ENCODER_TRAINED = read_if("supervised.frozen", False, only=("drop_path", "activation_checkpointing"))
_LAYERS_TRAINED = read_if("supervised.frozen", False, only=("layer_decay",))


@dataclass(frozen=True)
class Recipe:
    """A method, its data and its schedule."""

    name: str = "mae"
    """Name of the recipe that this one started from."""
    encoder: Annotated[EncoderOptions, _HIDES, _ENCODER_TRAINED] = field(default_factory=EncoderOptions)
    fusion: FusionOptions = field(default_factory=FusionOptions)
    masking: Annotated[MaskingOptions, _MASKED] = field(default_factory=MaskingOptions)
    decoder: Annotated[DecoderOptions, _MASKED] = field(default_factory=DecoderOptions)
    target: Annotated[TargetOptions, _MASKED] = field(default_factory=TargetOptions)
    method: Literal["mim", "cmae", "supervised"] = "mim"
    """Forward pass and loss. mim: masked image modelling of one view (masking, decoder, target, loss). cmae:
    the same, and a contrastive branch that sees a second view (CMAE). supervised: no mask, labels (DeiT)."""
    loss: Annotated[LossName, _MASKED] = "mse"
    """Loss over the predicted patches: mse (MAE, MaskFeat), l1 (SimMIM), cosine (EVA, MILAN) or cross_entropy
    (BEiT)."""
    data: DataOptions = field(default_factory=DataOptions)
    cmae: Annotated[CMAEOptions, read_if("method", "cmae")] = field(default_factory=CMAEOptions)
    supervised: Annotated[SupervisedOptions, _LABELS] = field(default_factory=SupervisedOptions)
    labels: Annotated[LabelOptions, _LABELS] = field(default_factory=LabelOptions)
    optim: Annotated[OptimOptions, _LAYERS_TRAINED] = field(default_factory=OptimOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    monitor: MonitorOptions = field(default_factory=MonitorOptions)


_SIZES: dict[Size, tuple[int, int, int, int]] = {
    "ti": (192, 12, 3, 16),
    "s": (384, 12, 6, 16),
    "b": (768, 12, 12, 16),
    "l": (1024, 24, 16, 16),
    "h": (1280, 32, 16, 14),
}


def beit_encoder(size: Size) -> EncoderOptions:
    """The ViT that BEiT and SimMIM were published on: relative position biases shared by all blocks, layer
    scale from 0.1, drop path 0.1, mask tokens; width, depth, heads and patch of the usual sizes."""
    width, depth, heads, patch_px = _SIZES[size]
    return EncoderOptions(
        name="beit_base_patch16_224",
        patch_size=patch_px,
        width=width,
        depth=depth,
        heads=heads,
        relative_positions="shared",
        layer_scale=0.1,
        drop_path=0.1,
        hide="replace",
        weight_init="simmim",
    )
