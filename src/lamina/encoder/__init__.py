"""A timm ViT that sees only a part of the image and hands out the layers it is asked for."""

from __future__ import annotations

from lamina.encoder.build import build_vit, own_epsilon, timm_arguments, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.layers import layer_ids
from lamina.encoder.networks import Network
from lamina.encoder.norms import epsilon_of, set_epsilon
from lamina.encoder.options import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ChannelRule,
    EncoderOptions,
    default_statistics,
)
from lamina.encoder.residual_decay import Factors, folded, products, shortcut_factors

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ChannelRule",
    "Encoder",
    "EncoderOptions",
    "Factors",
    "Network",
    "build_vit",
    "default_statistics",
    "epsilon_of",
    "folded",
    "layer_ids",
    "own_epsilon",
    "products",
    "set_epsilon",
    "shortcut_factors",
    "timm_arguments",
    "wrap_vit",
]
