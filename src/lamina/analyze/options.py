"""Options that several analyses share, and the choices that their code and the command line both name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lamina.core.ranges import COUNT, NOT_NEGATIVE, SEED, RangeChecked

Mode = Literal["park-kim", "exact"]
Direction = Literal["diagonal", "radial"]
Parameters = Literal["encoder", "all"]
Crops = Literal["eval", "train"]
Probe = Literal["knn", "linear"]


@dataclass(frozen=True)
class OutputOptions(RangeChecked):
    """Where an analysis is written; its options derive from this."""

    out: Path | None = None
    """Folder for the JSON, PNG and SVG files; by default RUN/analyses, where there is a single run."""


@dataclass(frozen=True)
class ImageOptions(OutputOptions):
    """The images of an analysis, and where it is computed."""

    data: str | None = None
    """Images: a folder, a .txt list, a quoted glob or a sample, of which the held-out part is used. By
    default the images that the first run was trained on."""
    device: str = "auto"
    """Device to compute on: auto, cpu, cuda, cuda:1, mps, ...; auto takes a GPU where there is one."""
    seed: Annotated[int, SEED] = 0
    """Random seed of the choice of images, and of whatever else an analysis draws at random."""


@dataclass(frozen=True)
class AnalysisOptions(ImageOptions):
    """The images that models are analysed on, how they are computed, and the output folder."""

    images: Annotated[int, COUNT] = 256
    """Number of images; they are drawn at random by the seed where the data has more."""
    network: str | None = None
    """timm name of the network, for weights files that do not name it."""
    heads: Annotated[int | None, tyro.conf.arg(name="encoder.heads"), COUNT] = None
    """Attention heads of the network, for weights files of an unusual width that do not name it."""
    batch_size: Annotated[int, COUNT] = 32
    """Images per forward pass; the numbers do not depend on it."""
    workers: Annotated[int, NOT_NEGATIVE] = 0
    """Number of processes that read images; 0 reads them in the main process."""
