"""Training that starts from what is trained: a weights file, or an encoder that is open."""

from __future__ import annotations

from pathlib import Path

from lamina.encoder import ChannelRule, Encoder
from lamina.errors import LaminaError
from lamina.interop.backbone import Backbone
from lamina.interop.loading import open_weights
from lamina.interop.weights import Loaded, check_unshaped, fit_positions, mismatches, put_weights, refolded


def start_from(encoder: Encoder, path: str | Path, channels: ChannelRule | None = None) -> Loaded:
    """Fill the encoder from a run, an export, what others trained, or a timm model (timm/NAME) with its
    published weights, as `load_weights_into` does for a bare network. `channels` is the rule by which weights
    for another number of channels are taken.

    A run with residual decay, or its export, may start an encoder with the same, another or none: its weights
    are converted so that the encoder computes what that network computes, up to the epsilon of the norms. Any
    other file's weights are taken as they are.

    Raises:
        LaminaError: where there is nothing of that name, or it does not fit. The encoder is then as it was.
    """
    return put_weights(encoder.vit, open_weights(path), Path(path).name, encoder.factors, channels)


def adopt(encoder: Encoder, backbone: Backbone) -> bool:
    """Fill the encoder with the weights of another that is open, of the same network but for its image size
    and its residual decay; whether positions were resampled to another grid.

    Raises:
        LaminaError: where the networks differ in more. Nothing is changed then.
    """
    name = "the encoder" if backbone.origin is None else backbone.origin.name
    check_unshaped(encoder.vit, backbone.encoder.vit, name)
    found = dict(backbone.encoder.vit.state_dict())
    resampled = fit_positions(found, encoder.vit, backbone.encoder.grid)
    if problems := mismatches(encoder.vit.state_dict(), found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    encoder.vit.load_state_dict(refolded(encoder.vit, found, backbone.encoder.factors, encoder.factors))
    return resampled is not None
