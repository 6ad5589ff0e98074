"""Options of frozen features, of how they are computed, and of kNN and a linear probe on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from lamina.core.errors import LaminaError
from lamina.core.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE_BETWEEN,
    RangeChecked,
    check_blocks,
    check_ranges,
)

if TYPE_CHECKING:  # torch takes seconds to import, and options are read for help too
    from lamina.interop.backbone import Backbone, FeatureKind

Wanted = Literal["last", "fused", "layers"]

VectorPool = Literal["cls", "mean", "cls+mean"]


@dataclass(frozen=True)
class FeatureOptions(RangeChecked):
    """The vectors of an encoder that are evaluated: a row of the table for each of the features in each pool.

    "last" and "fused" are normed by the encoder's final norm. Block outputs are not: like all vectors that
    are put together of several parts, they are standardised channel by channel on the training images, as
    `lamina.analyze.layer_probes` does it.
    """

    features: tuple[Wanted, ...] = ("last", "fused")
    """last: the output of the last block. fused: the fused features that the decoder reads, where the model
    has a fusion. layers: the output of each block, in a row of its own."""
    layers: Annotated[tuple[int, ...], NOT_NEGATIVE] = ()
    """Also evaluate the concatenated outputs of these blocks, counted from 0, such as 8 9 10 11 for the last
    four of 12 (DINOv2's linear probe)."""
    pools: tuple[VectorPool, ...] = ("cls", "mean")
    """Vector of an image: the class token (cls, where there is one), the mean of the patch tokens (mean), or
    both concatenated (cls+mean)."""
    baselines: bool = True
    """Also evaluate the untrained network and raw pixels. Turn it off for large data sets, since all vectors
    are in memory: for ImageNet 63 GB of raw pixels, and 3.9 GB for each kind of features of a ViT-B."""

    def parts(self, backbone: Backbone) -> dict[str, tuple[FeatureKind | int, ...]]:
        """The blocks or features that each kind is made of, by the name of its rows.

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
        check_blocks("layers", self.layers, depth)
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
            wanted = " or ".join(map(repr, self.pools))
            raise LaminaError(f"this encoder has no pool {wanted}; take {' or '.join(backbone.pools)}")
        return found


@dataclass(frozen=True)
class KNNOptions:
    """Candidates of a kNN evaluation. Leave-one-out accuracy on the training images chooses among them."""

    k: Annotated[tuple[int, ...], COUNT] = (10, 20, 100, 200)
    """Candidates for the number of neighbours. A number above that of the training images is reduced to
    it."""
    temperature: Annotated[float, POSITIVE] = 0.07
    """Temperature of the votes exp(similarity / temperature). A lower one gives near neighbours more
    weight."""
    centred: tuple[bool, ...] = (False, True)
    """Candidates for subtracting the mean of the training features before the cosine. DINO does not subtract
    it (False alone); raw pixels, untrained features and MAE gain by it."""
    selection_samples: Annotated[int, COUNT] = 50_000
    """Choose among the candidates on at most this many training images, evenly spread. The cost grows with
    this number times that of the training images."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if not self.k:
            raise LaminaError("k must be one or more numbers")
        if not self.centred:
            raise LaminaError("centred must hold False, True or both")


@dataclass(frozen=True)
class LinearOptions:
    """Candidates of a linear probe, and the training images that choose among them."""

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
    """Candidates for scikit-learn's C, ascending: |W|^2 / (2 C) is added to the summed cross-entropy, on
    features with a mean squared length of 1. A larger C is a weaker penalty."""
    validation_share: Annotated[float, SHARE_BETWEEN] = 0.25
    """Share of the training images of each class on which C, features and pool are chosen."""
    patience: Annotated[int, COUNT] = 2
    """With 5,000 or more validation images, stop after this many values of C in a row that are worse than the
    best one. With fewer, all values are tried."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if not self.c or any(a >= b for a, b in pairwise(self.c)):
            raise LaminaError(f"c must ascend, not {self.c}")


Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class ComputeOptions(RangeChecked):
    """How features are computed; beyond rounding the numbers do not depend on it."""

    batch_size: Annotated[int, COUNT] = 64
    """Images per forward pass. Lower it where the device runs out of memory."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Number of processes that read images. Raise it where the device waits for images; 0 reads them in the
    main process."""
    device: str = "auto"
    """Device to compute on: auto, cpu, cuda, cuda:1, mps, ...; auto takes a GPU where there is one."""
    progress: Progress | None = None
    """It is called after each batch with the number of images that are done, the number of all, and the share
    of the time that was spent waiting for images."""
    cache: str | Path | None = None
    """Folder that features are kept in and read from. They are found again by a hash of weights, images and
    transform; the folder may be deleted at any time."""
