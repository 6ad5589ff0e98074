"""All analyses, a row each (name, help, title, options, module), and the options of each.

The command line, the report and the documentation read `ANALYSES`. A new analysis is a row here and two
files: `X.py` with a result type and `run(session, options) -> result`, and `X_plot.py` with `draw(result)`
and `summarize(result)`. Nothing here imports torch, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any, Literal

from lamina.analyze.options import (
    AnalysisOptions,
    Crops,
    Direction,
    ImageOptions,
    Mode,
    OutputOptions,
    Parameters,
    Probe,
)
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE

ENCODERS = "Runs, steps of runs (runs/mff@100), timm names or weights files."
RUNS = "Runs, or steps of runs (runs/mff@100)."


@dataclass(frozen=True)
class FrequencyOptions(AnalysisOptions):
    """Options of `lamina analyze frequency`."""

    mode: Mode = "exact"
    """exact: true angular frequencies on any grid. park-kim: the arithmetic of the notebook published with
    arXiv 2202.06709, which needs a square grid with an even side and takes its diagonal."""
    direction: Direction = "radial"
    """radial: mean over rings of equal frequency. diagonal: the same frequency along both axes; park-kim
    always takes it."""
    sub_blocks: bool = True
    """Also measure the tokens between attention and MLP, not after whole blocks alone."""


@dataclass(frozen=True)
class SimilarityOptions(AnalysisOptions):
    """Options of `lamina analyze similarity`."""

    pool: Literal["mean", "cls"] = "mean"
    """Vector of an image in each layer: the mean of the patch tokens (mean) or the class token (cls)."""


@dataclass(frozen=True)
class RankOptions(AnalysisOptions):
    """Options of `lamina analyze rank`."""

    views: Annotated[int, NOT_NEGATIVE] = 0
    """Random crops of each image for LiDAR, 2 or more; 0 leaves LiDAR out."""


@dataclass(frozen=True)
class LayerProbesOptions(AnalysisOptions):
    """Options of `lamina analyze depth`."""

    images: Annotated[int, COUNT] = 1000
    """Largest number of labelled images of the training part, and of the test part."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per forward pass; the numbers do not depend on it."""
    protocols: tuple[Probe, ...] = ("knn", "linear")
    """Probes that are fitted after every block."""


@dataclass(frozen=True)
class PatchesOptions(AnalysisOptions):
    """Options of `lamina analyze patches`."""

    num_shown: Annotated[int, COUNT] = 6
    """Number of images in the picture; the numbers are over all images."""
    at: Annotated[tuple[int, int] | None, NOT_NEGATIVE] = None
    """Row and column, from 0, of the patch to which the cosines of all others are shown; by default the
    middle."""


@dataclass(frozen=True)
class RetrievalOptions(AnalysisOptions):
    """Options of `lamina analyze retrieval`."""

    queries: Annotated[int, COUNT] = 4
    """Number of queries in the picture; precision and mAP are over all images as queries."""
    k: Annotated[int, COUNT] = 5
    """Number of neighbours of each query, and the k of precision@k."""


@dataclass(frozen=True)
class HessianOptions(ImageOptions):
    """Options of `lamina analyze hessian`."""

    batches: Annotated[int, COUNT] = 12
    """Number of mini-batches."""
    batch_size: Annotated[int, COUNT] = 4
    """Images in each mini-batch; eigenvalues depend on it."""
    crops: Crops = "eval"
    """eval: images of the held-out part, centre-cropped. train: images of the training part in its place,
    cropped and augmented as in training."""
    mixed: bool = False
    """Classifiers only: mix images and smooth labels as in training; by default the loss is the plain
    negative log-likelihood."""
    top: Annotated[int, COUNT] = 5
    """Number of largest eigenvalues of each mini-batch."""
    bottom: Annotated[int, NOT_NEGATIVE] = 1
    """Number of most negative eigenvalues of each mini-batch; 0: none."""
    parameters: Parameters = "encoder"
    """Parameters that the Hessian is over: encoder, so that methods with different decoders can be compared,
    or all."""
    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """Coefficient of an L2 term that is added to the loss; 0: none."""
    tol: Annotated[float, POSITIVE] = 1e-3
    """Lanczos stops when the residual |Hv - λv| of each eigenvalue λ is at most this share of |λ|."""
    power_iterations: Annotated[int, NOT_NEGATIVE] = 0
    """Also compute this many eigenvalues of largest magnitude by power iteration (PyHessian's method, up to
    100 products each); 0: none."""
    trace_probes: Annotated[int, NOT_NEGATIVE] = 0
    """Number of random vectors that estimate the trace, a product each; 0 leaves it out."""
    density_probes: Annotated[int, NOT_NEGATIVE] = 0
    """Number of random vectors that estimate the density of all eigenvalues, 40 products each; 0 leaves it
    out."""

    @property
    def images(self) -> int:
        """Number of images in all mini-batches."""
        return self.batches * self.batch_size


@dataclass(frozen=True)
class Analysis:
    """One analysis; `name` is its verb and the stem of its files."""

    name: str
    help: str
    """What it does, as a sentence."""
    title: str
    """Heading in reports."""
    options: type[Any]
    module: str
    """Dotted path of the module with `run`; the one with `draw` and `summarize` is called the same plus
    `_plot`."""
    takes: str = ENCODERS
    """What may be analysed, as a sentence."""

    def load(self) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
        """`run`, `draw` and `summarize`, imported now."""
        plot = import_module(f"{self.module}_plot")
        return import_module(self.module).run, plot.draw, plot.summarize


ANALYSES = (
    Analysis(
        "layers",
        "Show each fused block's weight and contribution over training.",
        "Fusion weights of the blocks",
        OutputOptions,
        "lamina.analyze.fusion_weights",
        "Runs that were trained with --fusion mff.",
    ),
    Analysis(
        "depth",
        "Fit kNN and a linear probe after every block, and find the best one.",
        "Accuracy of probes after each block",
        LayerProbesOptions,
        "lamina.analyze.layer_probes",
    ),
    Analysis(
        "frequency",
        "Measure the spatial frequencies of the tokens in every block.",
        "Spatial frequencies of the tokens",
        FrequencyOptions,
        "lamina.analyze.frequency",
    ),
    Analysis(
        "reconstruction",
        "Measure the error on hidden patches by spatial frequency.",
        "Reconstruction error by spatial frequency",
        AnalysisOptions,
        "lamina.analyze.reconstruction",
        "Runs that predict pixels, or steps of such runs (runs/mff@100).",
    ),
    Analysis(
        "hessian",
        "Measure the sharpness of a run's loss: Hessian eigenvalues.",
        "Sharpness: Hessian eigenvalues of the loss",
        HessianOptions,
        "lamina.analyze.hessian",
        RUNS,
    ),
    Analysis(
        "attention",
        "Measure the attention distance and entropy of every head.",
        "Attention distance and entropy",
        AnalysisOptions,
        "lamina.analyze.attention",
    ),
    Analysis(
        "similarity",
        "Compare layers within and between models by debiased linear CKA.",
        "Similarity of layers (CKA)",
        SimilarityOptions,
        "lamina.analyze.similarity",
    ),
    Analysis(
        "rank",
        "Measure how many dimensions features use: RankMe, LiDAR and others.",
        "Rank of the features",
        RankOptions,
        "lamina.analyze.rank",
    ),
    Analysis(
        "patches",
        "Show patch features: colours, norms, cosines and class attention.",
        "Patch features",
        PatchesOptions,
        "lamina.analyze.patches",
    ),
    Analysis(
        "retrieval",
        "Find the nearest images; with labels, measure precision and mAP.",
        "Nearest images by feature similarity",
        RetrievalOptions,
        "lamina.analyze.retrieval",
    ),
)
"""In the order in which reports show them."""


def analysis(name: str) -> Analysis:
    """The row of an analysis."""
    return next(row for row in ANALYSES if row.name == name)
