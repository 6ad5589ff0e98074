"""From the tokens of a frozen encoder to one vector per image: of which blocks, and pooled in which way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.core.batch import unit_float
from lamina.core.frozen import network_sha256
from lamina.features.options import FeatureOptions, VectorPool
from lamina.interop.backbone import Backbone, Features

MOST_PIXEL_VALUES = 12_288
"""64 x 64 in colour: larger images are averaged down to it for the raw-pixel baseline."""


@runtime_checkable
class Extractor(Protocol):
    """From images to vectors, each kind by the names of features and pool."""

    def __call__(self, images: Shaped[Tensor, "B C H W"], /) -> Mapping[tuple[str, str], Tensor]:
        """A row for each image."""


@runtime_checkable
class Identified(Protocol):
    """An extractor whose vectors may be cached."""

    def identity(self) -> str:
        """Differs where vectors of the same images may."""


def standardised_first(features: str, pool: str) -> bool:
    """Whether vectors of that name are standardised before they are classified (`FeatureOptions`)."""
    return features.startswith("block") or "+" in pool


class BackboneVectors:
    """Vectors of a backbone, all requested kinds by one forward.

    Raises:
        LaminaError: where the backbone has none of the requested features.
    """

    def __init__(self, backbone: Backbone, options: FeatureOptions | None = None) -> None:
        options = options or FeatureOptions()
        self.backbone = backbone
        self.parts, self.pools = options.parts(backbone), options.pools_of(backbone)

    def __call__(self, images: Shaped[Tensor, "B C H W"]) -> dict[tuple[str, str], Float[Tensor, "B K"]]:
        """Each kind by the names of features and pool."""
        kinds = tuple(dict.fromkeys(part for parts in self.parts.values() for part in parts))
        found = self.backbone.every(images, kinds)
        return {
            (name, pool): torch.cat([_pooled(found[part], pool) for part in parts], dim=1)
            for name, parts in self.parts.items()
            for pool in self.pools
        }

    def identity(self) -> str:
        """That of the network, its weights and the requested kinds."""
        return json.dumps([self._network, {k: list(v) for k, v in self.parts.items()}, list(self.pools)])

    @cached_property
    def _network(self) -> str:
        return network_sha256(self.backbone)


class PixelVectors:
    """The pixels themselves on [0, 1], averaged over areas where there are more than 12,288 values."""

    def __call__(self, images: Shaped[Tensor, "B C H W"]) -> dict[tuple[str, str], Float[Tensor, "B K"]]:
        """The one kind there is."""
        pixels = unit_float(images)
        _, channels, height, width = pixels.shape
        shrink = (MOST_PIXEL_VALUES / (channels * height * width)) ** 0.5
        if shrink < 1:
            size = [max(1, int(height * shrink)), max(1, int(width * shrink))]
            pixels = F.interpolate(pixels, size=size, mode="area")
        return {("pixels", "-"): pixels.flatten(1)}

    def identity(self) -> str:
        """One and the same for all pixels."""
        return f"pixels, at most {MOST_PIXEL_VALUES}"


def layer_vectors(backbone: Backbone) -> Extractor:
    """Pooled outputs of every layer ("-1", "0", ...), and "last" and "fused", of one pass.

    The class token of the embedded input is left out: it is the same for all images.
    """
    kinds = (*range(-1, backbone.encoder.depth), *backbone.kinds)
    named = [(kind, pool) for kind in kinds for pool in backbone.pools if (kind, pool) != (-1, "cls")]

    def extract(images: Shaped[Tensor, "B C H W"]) -> dict[tuple[str, str], Tensor]:
        found = backbone.every(images, kinds)
        return {(str(kind), pool): found[kind].pooled(pool) for kind, pool in named}

    return extract


def _pooled(features: Features, pool: VectorPool) -> Float[Tensor, "B K"]:
    if pool == "cls+mean":
        return torch.cat([features.pooled("cls"), features.pooled("mean")], dim=1)
    return features.pooled(pool)
