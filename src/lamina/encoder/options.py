"""The options of the encoder: which Vision Transformer, of which sizes, and how images are normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.config import Formerly
from lamina.core.errors import LaminaError
from lamina.core.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SHARE_ABOVE_0,
    SHARE_BELOW_1,
    RangeChecked,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ChannelRule = Literal["repeat", "mean", "new"]
RelativePositions = Literal["none", "per_block", "shared"]


@dataclass(frozen=True)
class EncoderOptions(RangeChecked):
    """The Vision Transformer that is trained."""

    name: str = "vit_small_patch16_224"
    """timm name of the network: a VisionTransformer, an Eva or a Beit. A Beit needs --encoder.hide
    replace."""
    image_size: Annotated[tuple[int, ...] | None, COUNT] = None
    """Size of the input images in pixels: one number for a square, or height and width. Unset: the size of
    the named model."""
    patch_size: Annotated[int | None, COUNT] = None
    """Side of a patch in pixels. Unset: that of the named model."""
    in_chans: Annotated[int, COUNT] = 3
    """Number of channels of the input images, such as 1 for grey and 3 for colour images."""
    width: Annotated[int | None, COUNT] = None
    """Embedding width D, the number of channels of a token. Unset: that of the named model."""
    depth: Annotated[int | None, COUNT] = None
    """Number of transformer blocks. Unset: that of the named model."""
    heads: Annotated[int | None, COUNT] = None
    """Number of attention heads in each block; it has to divide the width. Unset: that of the named model."""
    class_tokens: Annotated[int, COUNT] = 1
    """Number of class tokens, for networks that have one. With several (Pixio: 8), timm's class token and its
    registers are all treated alike."""
    relative_positions: RelativePositions | None = None
    """Relative position biases of a Beit. per_block: each block has its own. shared: all blocks share one
    table (BEiT's and SimMIM's pre-training). none: learned absolute positions are used instead. Unset: as in
    the named model."""
    layer_scale: Annotated[float | None, NOT_NEGATIVE] = None
    """Initial value of LayerScale, which multiplies the output of each residual branch (0.1 in BEiT and
    SimMIM). 0: no LayerScale. Unset: as in the named model."""
    norm_eps: Annotated[float | None, POSITIVE] = None
    """Epsilon of the layer norms. Unset: that of the weights given by --init, else that of the named model
    (1e-6 in most)."""
    residual_decay: Annotated[float | None, SHARE] = None
    """Scale the shortcut of each block by a factor that falls linearly from 1 at the first block to this
    value at the last (0.6 for ViT-B in arXiv 2404.10947). Unset: plain shortcuts."""
    drop_path: Annotated[float, SHARE_BELOW_1] = 0.0
    """Rate of stochastic depth at the last block; the rate rises linearly from 0 at the first block. 0: off.
    Raise it where a long training of a large network overfits."""
    mean: Annotated[tuple[float, ...] | Literal["auto"] | None, SHARE] = None
    """Mean of each channel, on the scale [0, 1], that is subtracted from the images. auto: measured on the
    training images. Unset: ImageNet's for three channels, else 0.5."""
    std: Annotated[tuple[float, ...] | Literal["auto"] | None, SHARE_ABOVE_0] = None
    """Standard deviation of each channel, on the scale [0, 1], that the images are divided by. auto: measured
    on the training images. Unset: ImageNet's for three channels, else 0.25."""
    hide: Literal["drop", "replace"] = "drop"
    """What happens to hidden patches. drop: the encoder processes the visible patches alone (MAE). replace: a
    mask token takes the place of each hidden patch (SimMIM, BEiT)."""
    weight_init: Annotated[Literal["mae", "simmim", "timm"], Formerly("start")] = "mae"
    """How weights are initialised. mae: Xavier, with fixed sine-cosine positions. simmim: truncated normals
    scaled by depth; positions as for mae, except that a Beit keeps its own. timm: as timm does, with learned
    positions."""
    init_channels: ChannelRule | None = None
    """How --init uses a patch embedding for another number of channels. repeat: its channels are used in
    turn, for as many channels or more. mean: each channel gets the mean of all of its channels. new: the
    patch embedding is not used and is initialised anew. The values are scaled by the old number of channels
    over the new one, so that images whose channels are all equal are embedded as before (with repeat: where
    the new number is a multiple of the old). Unset: such weights are refused."""
    zero_branches: bool = False
    """Initialise the last matrix of each residual branch with zeros, as arXiv 2404.10947 does for residual
    decay below 0.7."""
    activation_checkpointing: bool = False
    """Recompute the blocks in the backward pass instead of storing their activations: a step needs less
    memory and more time."""


def default_statistics(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel means and standard deviations: as given, else ImageNet's for colour, else 0.5 and 0.25."""
    mean = tuple(mean) if mean is not None else IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = tuple(std) if std is not None else IMAGENET_STD if channels == 3 else (0.25,) * channels
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise LaminaError(
                f"{name} has {len(values)} numbers for {channels} channels; give one number for each channel"
            )
    if min(std) <= 0:
        raise LaminaError(f"std is {std}; give numbers above 0")
    return mean, std


def network_options(name: str | None, heads: int | None) -> EncoderOptions | None:
    """The `encoder` of `load_encoder` from the options of a command line: a timm name, and attention heads,
    for weights files that do not state them. Without `heads` a named network has timm's."""
    if name is None and heads is None:
        return None
    return EncoderOptions(name=name or EncoderOptions().name, heads=heads)
