"""Features of a whole source, computed once: every image is read once and passes each encoder once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from lamina.batch import Fault, unit_float
from lamina.data import DataOptions, Source, eval_batches
from lamina.errors import LaminaError
from lamina.interop import Backbone
from lamina.train.distributed import choose_device

MOST_PIXEL_VALUES = 12_288
"""64 x 64 in colour: larger images are averaged down to it for the raw-pixel baseline."""

Extractor = Callable[[Shaped[Tensor, "B C H W"]], Mapping[tuple[str, str], Tensor]]
Progress = Callable[[int, int], None]


class Key(NamedTuple):
    """Names one kind of vector: "trained", "fused", "mean"."""

    encoder: str
    features: str
    pool: str


@dataclass(frozen=True)
class Computing:
    """How features are computed; beyond rounding the numbers do not depend on it."""

    batch_size: int = 64
    """Images per forward."""
    workers: int = 2
    """Processes that read images."""
    device: str = "auto"
    """auto (the GPU where there is one), cpu, cuda, ..."""
    progress: Progress | None = None
    """Told how many images of how many are done."""


@dataclass(frozen=True)
class Table:
    """Vectors of the images that could be read, in the source's order, on the CPU.

    `index` are their places in the source; `faults` the images that could not be read.
    """

    vectors: dict[Key, Float[Tensor, "n D"]]
    index: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"] | None
    faults: tuple[Fault, ...]


def backbone_vectors(backbone: Backbone) -> Extractor:
    """All features and pools of a backbone, of one forward."""

    def extract(images: Shaped[Tensor, "B C H W"]) -> dict[tuple[str, str], Tensor]:
        found = backbone.every(images)
        return {(kind, pool): found[kind].pooled(pool) for kind in backbone.kinds for pool in backbone.pools}

    return extract


def pixel_vectors(images: Shaped[Tensor, "B C H W"]) -> dict[tuple[str, str], Float[Tensor, "B K"]]:
    """The pixels themselves on [0, 1], averaged over areas where there are more than 12,288 values."""
    pixels = unit_float(images)
    _, channels, height, width = pixels.shape
    shrink = (MOST_PIXEL_VALUES / (channels * height * width)) ** 0.5
    if shrink < 1:
        size = [max(1, int(height * shrink)), max(1, int(width * shrink))]
        pixels = F.interpolate(pixels, size=size, mode="area")
    return {("pixels", "-"): pixels.flatten(1)}


@torch.inference_mode()
def collect(
    source: Source,
    extractors: Mapping[str, Extractor],
    image_size: tuple[int, int],
    in_chans: int,
    reading: DataOptions | None = None,
    computing: Computing | None = None,
) -> Table:
    """Vectors of all images of `source` by every extractor, in float32 and in order.

    Images are read and cropped as `eval_batches` does with `reading`.

    Raises:
        LaminaError: where no image can be read, or images do not fit an encoder.
    """
    computing = computing or Computing()
    device = choose_device(computing.device)
    found: dict[Key, list[Tensor]] = {}
    index: list[Tensor] = []
    labels: list[Tensor] = []
    faults: list[Fault] = []
    for batch in eval_batches(source, image_size, in_chans, computing.batch_size, computing.workers, reading):
        assert batch.keys is not None
        faults += batch.faults
        index.append(batch.keys)
        labels += [] if batch.labels is None else [batch.labels]
        images = batch.images.to(device, non_blocking=True)
        for encoder, extract in extractors.items():
            for (kind, pool), vectors in extract(images).items():
                found.setdefault(Key(encoder, kind, pool), []).append(vectors.float().cpu())
        if computing.progress is not None:
            computing.progress(sum(map(len, index)) + len(faults), len(source))
    matrices = {key: torch.cat(parts) for key, parts in found.items()}
    for key, matrix in matrices.items():
        if not torch.isfinite(matrix).all():
            raise LaminaError(f"features {key.features} of the {key.encoder} encoder are not finite")
    return Table(matrices, torch.cat(index), torch.cat(labels) if labels else None, tuple(faults))
