"""The encoder of a dense protocol: a model's network at the size of the windows, perhaps frozen."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Self

import torch
from torch import nn

from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.networks import layer_ids
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.encoder_options import DenseEncoder
from lamina.evaluate.finetune.adapt import options_to_train
from lamina.interop.backbone import Backbone
from lamina.interop.resizing import copy_weights


class DenseTask(nn.Module):
    """The part of a dense protocol's network that is the encoder, frozen or trained.

    Args:
        encoder: built for the windows' size.
        frozen: the encoder stays in evaluation mode, without gradients, and out of every checkpoint.
    """

    def __init__(self, encoder: Encoder, frozen: bool) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        if frozen:
            encoder.requires_grad_(False)

    def reading(self) -> AbstractContextManager[object]:
        """In which the encoder is read: without gradients where it is frozen."""
        return torch.no_grad() if self.frozen else nullcontext()

    def train(self, mode: bool = True) -> Self:
        """A frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def after_step(self, step: int) -> None:
        """Nothing moves beside what is trained."""

    def untracked_state(self) -> set[str]:
        """A frozen encoder comes from elsewhere."""
        return {"encoder."} if self.frozen else set()

    def layer_ids(self) -> dict[str, int]:
        """Each trained parameter's layer for layer decay."""
        return layer_ids(self, self.encoder.depth)


def resized_options(backbone: Backbone, size: tuple[int, int], changes: DenseEncoder) -> EncoderOptions:
    """The options of the model's network for images of `size`, height and width in px.

    Raises:
        LaminaError: for a backbone that was put together by hand, or a size that patches do not divide.
    """
    origin = backbone.known_origin
    if any(side % patch for side, patch in zip(size, backbone.encoder.patch, strict=True)):
        rows, columns = backbone.encoder.patch
        raise LaminaError(
            f"windows of {size[0]} x {size[1]} px are no multiple of the encoder's patch, {rows} x {columns}"
        )
    return options_to_train(origin.recipe.encoder, size, changes)


def new_encoder(options: EncoderOptions) -> Encoder:
    """The network that `resized_options` describes, with random weights."""
    return wrap_vit(build_vit(options), options)


def resized_encoder(backbone: Backbone, options: EncoderOptions) -> Encoder:
    """The network that `resized_options` describes, with the model's weights; positions are resampled where
    its grid is another."""
    encoder = new_encoder(options)
    copy_weights(encoder, backbone)
    return encoder
