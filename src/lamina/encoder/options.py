"""Which Vision Transformer, of which sizes, and how it sees images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SHARE_ABOVE_0,
    SHARE_BELOW_1,
    check_ranges,
)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ChannelRule = Literal["repeat", "mean", "new"]
RelativePositions = Literal["none", "per_block", "shared"]


@dataclass(frozen=True)
class EncoderOptions:
    """The Vision Transformer that is trained."""

    name: str = "vit_small_patch16_224"
    """A timm name of a VisionTransformer, Eva or Beit (Beit with hide replace alone)."""
    image_size: Annotated[tuple[int, ...] | None, COUNT] = None
    """Side, or height and width, of the images in px; unset means the named model's."""
    patch_size: Annotated[int | None, COUNT] = None
    """Side of a patch in px; unset means the named model's."""
    in_chans: Annotated[int, COUNT] = 3
    """Channels of the images."""
    width: Annotated[int | None, COUNT] = None
    """D, where it differs from the named model's."""
    depth: Annotated[int | None, COUNT] = None
    """Number of blocks, where it differs from the named model's."""
    heads: Annotated[int | None, COUNT] = None
    """Attention heads, where they differ from the named model's."""
    class_tokens: Annotated[int, COUNT] = 1
    """Class tokens of a network that has them; several (Pixio: 8) are timm's class token and registers, all
    treated alike."""
    relative_positions: RelativePositions | None = None
    """Of a Beit: relative position biases for each block, shared by all (BEiT's and SimMIM's pre-training),
    or none but learned absolute positions; unset means the named model's."""
    layer_scale: Annotated[float | None, NOT_NEGATIVE] = None
    """Where the scales of the residual branches start (0.1 in BEiT and SimMIM), 0 for none; unset means the
    named model's."""
    norm_eps: Annotated[float | None, POSITIVE] = None
    """Epsilon of the layer norms; unset means the named model's (1e-6 of most), and with --init that of the
    weights."""
    residual_decay: Annotated[float | None, SHARE] = None
    """Factor of the last shortcut (0.6 for ViT-B in arXiv 2404.10947); from 1 at the first, factors fall
    linearly to it. Unset means plain shortcuts."""
    drop_path: Annotated[float, SHARE_BELOW_1] = 0.0
    """Largest rate of stochastic depth."""
    mean: Annotated[tuple[float, ...] | Literal["auto"] | None, SHARE] = None
    """Channel means for normalisation, on [0, 1]; auto measures the data; unset means ImageNet's for three
    channels, 0.5 otherwise."""
    std: Annotated[tuple[float, ...] | Literal["auto"] | None, SHARE_ABOVE_0] = None
    """Channel standard deviations; auto or unset as for the mean, but 0.25 in place of 0.5."""
    hide: Literal["drop", "replace"] = "drop"
    """drop: the encoder sees the visible patches alone (MAE). replace: mask tokens stand in for the hidden
    ones (SimMIM)."""
    start: Literal["mae", "simmim", "timm"] = "mae"
    """Initialisation: xavier and fixed sine-cosine positions (mae), truncated normals scaled by depth
    (simmim; positions as before, but a Beit keeps its own), or what timm does (learned positions)."""
    init_channels: ChannelRule | None = None
    """How --init takes the patch embedding of weights for another number of channels. repeat: their channels
    in turn, for as many channels or more. mean: their mean for each channel. new: it is not taken and starts
    anew. What is taken is scaled by the old number of channels over the new, so that images whose channels
    are alike are embedded as before (repeat: where the new number is a multiple of the old). Unset means that
    such weights are refused."""
    zero_branches: bool = False
    """Start the last matrix of each residual branch at zero, as residual decay does below factors of 0.7."""
    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, more time."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


def default_statistics(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel means and standard deviations: as given, else ImageNet's for colour, else 0.5 and 0.25."""
    mean = tuple(mean) if mean is not None else IMAGENET_MEAN if channels == 3 else (0.5,) * channels
    std = tuple(std) if std is not None else IMAGENET_STD if channels == 3 else (0.25,) * channels
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise LaminaError(f"{name} has {len(values)} numbers for {channels} channels; give one for each")
    if min(std) <= 0:
        raise LaminaError(f"std {std} must be positive")
    return mean, std


def network_options(name: str | None, heads: int | None) -> EncoderOptions | None:
    """What `load_encoder` takes as `encoder`, from the options of a command line: a timm name, and attention
    heads, for weights files that do not say them. Without heads of its own a named network has timm's."""
    if name is None and heads is None:
        return None
    return EncoderOptions(name=name or EncoderOptions().name, heads=heads)
