"""What the methods' constructors share: the two ways to hide, and the decoder that goes with each."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lamina.core.interfaces import Target
from lamina.core.weight_init import init_mae
from lamina.decoder import LinearDecoder, MAEDecoder, PromptDecoder
from lamina.encoder import Encoder, Network
from lamina.fusion import Fusion, LastLayer
from lamina.losses import Loss
from lamina.masking import Masking
from lamina.mim import MIM

Statistics = Sequence[float] | None


def dropping(
    vit: Network,
    mean: Statistics,
    std: Statistics,
    residual_decay: float | None = None,
    class_tokens: int = 1,
) -> Encoder:
    """An encoder that sees the visible patches alone."""
    encoder = Encoder(vit, "drop", mean, std, residual_decay=residual_decay, class_tokens=class_tokens)
    encoder.check_hiding()
    return encoder


def replacing(vit: Network, mean: Statistics, std: Statistics) -> Encoder:
    """An encoder that sees a mask token in place of each hidden patch."""
    encoder = Encoder(vit, "replace", mean, std)
    assert encoder.mask_token is not None
    nn.init.trunc_normal_(encoder.mask_token, std=0.02)
    return encoder


def with_decoder(
    masking: Masking,
    encoder: Encoder,
    fusion: Fusion | None,
    kind: type[MAEDecoder] | type[PromptDecoder],
    size: tuple[int, int, int],
    target: Target,
    loss: Loss,
) -> MIM:
    """The visible patches encoded, then a decoder of `size` (width, depth, heads) for the others."""
    decoder = kind(encoder.width, target.width, encoder.grid, encoder.n_prefix, *size)
    init_mae(decoder)
    return MIM(masking, encoder, fusion or LastLayer(encoder.depth), decoder, target, loss)


def with_head(masking: Masking, encoder: Encoder, fusion: Fusion | None, target: Target, loss: Loss) -> MIM:
    """Mask tokens in the encoder, then one matrix."""
    n_visible = masking.n_visible(encoder.grid)
    decoder = LinearDecoder(encoder.width, target.width, encoder.n_prefix, n_visible)
    return MIM(masking, encoder, fusion or LastLayer(encoder.depth), decoder, target, loss)
