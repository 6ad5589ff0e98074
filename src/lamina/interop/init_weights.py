"""Initialise an encoder from trained weights: a run, a weights file, a timm model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lamina.encoder.build import own_epsilon
from lamina.encoder.encoder import Encoder
from lamina.encoder.networks import epsilon_of
from lamina.encoder.options import ChannelRule, EncoderOptions
from lamina.interop.backbone import Backbone
from lamina.interop.load import open_weights
from lamina.interop.load_weights import Loaded, put_weights, trained_epsilon


def init_from_file(encoder: Encoder, path: str | Path, channels: ChannelRule | None = None) -> Loaded:
    """Load weights into the encoder from a run, an export, a file of another tool, or a timm model
    (timm/NAME), as `load_weights_into` does for a bare network. `channels` is the rule by which weights for
    another number of channels are used.

    A run with residual decay, or its export, may initialise an encoder with the same decay, another or none:
    its weights are converted so that the encoder computes what that network computes, up to the epsilon of
    the norms. The weights of other files are used as they are.

    Raises:
        LaminaError: where there is nothing of that name, or it does not fit. The encoder is then unchanged.
    """
    return put_weights(encoder.vit, open_weights(path), Path(path).name, encoder.factors, channels)


def with_epsilon_of(options: EncoderOptions, init: str | Path | Backbone) -> EncoderOptions:
    """The options with the epsilon of the layer norms of the weights that training starts from, where the
    options leave it open and the named model has another one. Raises as `init_from_file`."""
    if options.norm_eps is not None:
        return options
    eps = epsilon_of(init.encoder.vit) if isinstance(init, Backbone) else trained_epsilon(open_weights(init))
    return options if eps in (None, own_epsilon(options)) else replace(options, norm_eps=eps)
