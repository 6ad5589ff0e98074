"""The options of analyses: models, images and output, and what of a Hessian is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, check_ranges
from lamina.encoder.options import EncoderOptions, network_options


@dataclass(frozen=True)
class Looking:
    """What models are looked at with, and where to write."""

    data: str | None = None
    """Images: a folder, .txt list, quoted glob or sample (its held-out part); by default the first run's."""
    out: Path | None = None
    """Folder for JSON, PNG and SVG; by default RUN/analyses, for a single run."""
    images: Annotated[int, COUNT] = 256
    """How many; drawn by the seed where there are more."""
    encoder: str | None = None
    """timm name of the network, for weights files that do not say."""
    heads: Annotated[int | None, tyro.conf.arg(name="encoder.heads"), COUNT] = None
    """Attention heads of the network, for weights files of an unusual width, which do not say."""
    batch_size: Annotated[int, COUNT] = 32
    """Images per forward."""
    workers: Annotated[int, NOT_NEGATIVE] = 0
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    seed: Annotated[int, SEED] = 0
    """Of the images that are drawn, and of what an analysis draws itself."""

    @property
    def network(self) -> EncoderOptions | None:
        """What `load_encoder` takes for files that do not say their network."""
        return network_options(self.encoder, self.heads)

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)


Mode = Literal["park-kim", "exact"]

Direction = Literal["diagonal", "radial"]

Parameters = Literal["encoder", "all"]

Crops = Literal["eval", "train"]


@dataclass(frozen=True)
class Curvature:
    """What of a loss's Hessian is computed."""

    batches: Annotated[int, COUNT] = 12
    """Mini-batches."""
    batch_size: Annotated[int, COUNT] = 4
    """Images in each."""
    crops: Crops = "eval"
    """eval: held-out images, centre-cropped. train: training images, cropped and changed as in training."""
    mixed: bool = False
    """Classifiers mix images and smooth labels as in training; without, the loss is the plain NLL."""
    top: Annotated[int, COUNT] = 5
    """Largest eigenvalues of each."""
    bottom: Annotated[int, NOT_NEGATIVE] = 1
    """Most negative ones."""
    parameters: Parameters = "encoder"
    """encoder, so that methods with other decoders compare, or all."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """Of an L2 term beside the loss (NLL + L2 for classifiers)."""
    tol: Annotated[float, POSITIVE] = 1e-3
    """Lanczos stops when the residual |Hv - λv| of each eigenvalue λ is at most this share of |λ|."""
    power: Annotated[int, NOT_NEGATIVE] = 0
    """So many values of largest magnitude by power iteration too, as PyHessian has them (up to 100 products
    each)."""
    trace_probes: Annotated[int, NOT_NEGATIVE] = 0
    """Random vectors for the trace; 0 leaves it out."""
    density_probes: Annotated[int, NOT_NEGATIVE] = 0
    """Random vectors for the density of all eigenvalues, 40 products each; 0 leaves it out."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)
