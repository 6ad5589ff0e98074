"""The encoder of a dense protocol: a model's network at the size of the protocol's windows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamina.encoder import Encoder, EncoderOptions, build_vit, wrap_vit
from lamina.errors import LaminaError
from lamina.interop import Backbone, adopt


@dataclass(frozen=True)
class EncoderChanges:
    """What a dense protocol changes of a model's network."""

    frozen: bool = False
    """Whether it stays as it is: in evaluation mode, without gradients, in no checkpoint."""
    drop_path: float = 0.0
    """Largest rate of stochastic depth."""
    activation_checkpointing: bool = False
    """Recompute blocks in the backward pass: less memory, more time."""


def resized_options(backbone: Backbone, size: tuple[int, int], changes: EncoderChanges) -> EncoderOptions:
    """The options of the model's network for images of `size`, height and width in px.

    Raises:
        LaminaError: for a backbone that was put together by hand, or a size that patches do not divide.
    """
    if backbone.origin is None:
        raise LaminaError("this backbone does not say how it is built; load it by its name")
    if any(side % patch for side, patch in zip(size, backbone.encoder.patch, strict=True)):
        rows, columns = backbone.encoder.patch
        raise LaminaError(
            f"windows of {size[0]} x {size[1]} px are no multiple of the encoder's patch, {rows} x {columns}"
        )
    return replace(
        backbone.origin.recipe.encoder,
        image_size=size,
        drop_path=changes.drop_path,
        activation_checkpointing=changes.activation_checkpointing,
        hide="drop",
        start="timm",  # positions learn, whatever they were in pre-training
        zero_branches=False,
    )


def resized_encoder(backbone: Backbone, options: EncoderOptions) -> Encoder:
    """The network that `resized_options` describes, with the model's weights; positions are resampled where
    its grid is another."""
    encoder = wrap_vit(build_vit(options), options)
    adopt(encoder, backbone)
    return encoder
