"""From the tokens of a frozen encoder to one vector per image: of which blocks, and pooled in which way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import network_sha256
from lamina.core.ranges import NOT_NEGATIVE, check_ranges
from lamina.interop.backbone import Backbone, FeatureKind, Features

MOST_PIXEL_VALUES = 12_288
"""64 x 64 in colour: larger images are averaged down to it for the raw-pixel baseline."""

Wanted = Literal["last", "fused", "layers"]
VectorPool = Literal["cls", "mean", "cls+mean"]


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


@dataclass(frozen=True)
class FeatureOptions:
    """Which vectors of an encoder are judged: a row for each of the features in each of the pools.

    "last" and "fused" are normed by the encoder's final norm. Block outputs are not: like all vectors that
    are put together of several parts, they are standardised channel by channel on the training images, as
    `lamina.analyze.layer_probes` does it.
    """

    features: tuple[Wanted, ...] = ("last", "fused")
    """last: the last block. fused: what the decoder was given, where there is a fusion. layers: each block, a
    row each."""
    layers: Annotated[tuple[int, ...], NOT_NEGATIVE] = ()
    """Blocks, counted from 0, whose outputs side by side make one more row: of 12 blocks, the last 4 of
    DINOv2's probes are 8 9 10 11."""
    pools: tuple[VectorPool, ...] = ("cls", "mean")
    """cls: the class token, where there is one. mean: the mean of the patch tokens. cls+mean: both side by
    side."""
    baselines: bool = True
    """Whether the untrained network and raw pixels are judged beside. All kinds of vectors are in memory at
    once: of ImageNet's training images raw pixels are 63 GB and one kind of a ViT-B's features 3.9 GB."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)

    def parts(self, backbone: Backbone) -> dict[str, tuple[FeatureKind | int, ...]]:
        """What each of the features is made of, by the name of its rows.

        Raises:
            LaminaError: for blocks that the encoder has not, or where it has none of the features.
        """
        found: dict[str, tuple[FeatureKind | int, ...]] = {}
        depth = backbone.encoder.depth
        for wanted in self.features:
            if wanted == "layers":
                found |= {f"block {i}": (i,) for i in range(depth)}
            elif wanted in backbone.kinds:
                found[wanted] = (wanted,)
        if bad := [i for i in self.layers if not 0 <= i < depth]:
            raise LaminaError(f"there is no block {bad[0]}; this encoder has blocks 0 to {depth - 1}")
        if self.layers:
            several = "s" if len(self.layers) > 1 else ""
            found[f"block{several} {'+'.join(map(str, self.layers))}"] = self.layers
        if not found:
            raise LaminaError("this encoder has no fusion, so no fused features; take features 'last'")
        return found

    def pools_of(self, backbone: Backbone) -> tuple[VectorPool, ...]:
        """Those that the encoder has; raises where it has none of them."""
        found = tuple(p for p in self.pools if all(part in backbone.pools for part in p.split("+")))
        if not found:
            asked = " or ".join(map(repr, self.pools))
            raise LaminaError(f"this encoder has no pool {asked}; take {' or '.join(backbone.pools)}")
        return found


def standardised_first(features: str, pool: str) -> bool:
    """Whether vectors of that name are standardised before they are judged (`FeatureOptions`)."""
    return features.startswith("block") or "+" in pool


class BackboneVectors:
    """Vectors of a backbone, as many kinds as are asked for, of one forward.

    Raises:
        LaminaError: where the backbone has not what is asked for.
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
        """Of the network, its weights, and what is asked of it."""
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
        """There is nothing to tell apart."""
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
