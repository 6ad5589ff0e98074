"""What is computed of a frozen encoder, and what kNN and a linear probe try on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE_BETWEEN, check_ranges

if TYPE_CHECKING:  # torch takes seconds to import, and options are read for help too
    from lamina.interop.backbone import Backbone, FeatureKind

Wanted = Literal["last", "fused", "layers"]

VectorPool = Literal["cls", "mean", "cls+mean"]


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


@dataclass(frozen=True)
class KNNOptions:
    """The sweep of a kNN evaluation; every combination is judged by leave-one-out on the training set."""

    k: Annotated[tuple[int, ...], COUNT] = (10, 20, 100, 200)
    """Neighbours that vote; values beyond the training set are cut to its size."""
    temperature: Annotated[float, POSITIVE] = 0.07
    """Of the vote exp(similarity / temperature)."""
    centred: tuple[bool, ...] = (False, True)
    """Whether the mean of the training features is taken off before the cosine. DINO does not (False alone);
    raw pixels and untrained features, all positive or nearly parallel, gain by it, and so does MAE."""
    selection_samples: Annotated[int, COUNT] = 50_000
    """At most so many training samples, evenly spread, judge the candidates; each of them against all others,
    which for every one of 1.28 million would be their square."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if not self.k:
            raise LaminaError("k must be one or more numbers")
        if not self.centred:
            raise LaminaError("centred must hold False, True or both")


@dataclass(frozen=True)
class LinearOptions:
    """The sweep of a linear probe."""

    c: Annotated[tuple[float, ...], POSITIVE] = (
        0.1,
        0.3,
        1.0,
        3.0,
        10.0,
        30.0,
        100.0,
        300.0,
        1000.0,
        3000.0,
        10000.0,
    )
    """scikit-learn's C, ascending: the penalty is |W|^2 / (2 C) beside the summed cross-entropy, on features
    whose rows have a mean squared length of 1."""
    validation_share: Annotated[float, SHARE_BETWEEN] = 0.25
    """Share of each class's training samples that the choice of C, features and pool is made on."""
    patience: Annotated[int, COUNT] = 2
    """With 5,000 or more validation samples the sweep ends after so many values of C in a row that are worse
    than the best one; with fewer all values are tried."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if not self.c or any(a >= b for a, b in pairwise(self.c)):
            raise LaminaError(f"c must ascend, not {self.c}")


Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class ComputeOptions:
    """How features are computed; beyond rounding the numbers do not depend on it."""

    batch_size: Annotated[int, COUNT] = 64
    """Images per forward."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Processes that read images while others pass the encoder; 0: reading and computing take turns."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, ..."""
    progress: Progress | None = None
    """Told how many images of how many are done, and the share of the time spent waiting for images."""
    cache: Path | None = None
    """Folder that vectors are kept in and taken from; it may be deleted at any time."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
