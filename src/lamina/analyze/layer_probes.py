"""kNN and a linear probe after every block of an encoder, beside its last and fused features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int64
from scipy.special import ndtri
from torch import Tensor

from lamina.analyze.catalog import LayerProbesOptions
from lamina.analyze.models import subsample
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.core.errors import LaminaError
from lamina.core.intervals import wilson_interval
from lamina.data.sources import Source
from lamina.encoder.options import network_options
from lamina.features.data import LabelledData, open_labelled
from lamina.features.extract import collect_for
from lamina.features.knn import probe_knn
from lamina.features.linear import probe_linear, stratified_split
from lamina.features.options import ComputeOptions, KNNOptions, LinearOptions
from lamina.features.pooling import layer_vectors
from lamina.features.probe import ProbeResult, group_notes
from lamina.features.standardize import standardised
from lamina.features.table import FeatureKey, FeatureTable, ProbeName, Setting
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.train.distributed import choose_device

Place = Literal["block", "last", "fused"]
Progress = Callable[[str, int, int], None]
Probe = Callable[[Float[Tensor, "n D"], Int64[Tensor, "n"], Float[Tensor, "m D"]], ProbeResult]
KNN = KNNOptions(k=(5, 10, 20))
LINEAR = LinearOptions(c=(1.0, 10.0, 100.0, 1000.0))


@dataclass(frozen=True)
class LayerScore:
    """One probe of one kind of features; accuracies lie in [0, 1].

    "block" are the un-normed outputs of block `layer` (-1: the embedded input), each channel standardised by
    the mean and deviation of the training images; "last" are the final norm of the last block's output and
    "fused" those of the backbone's fusion, both as they are, so that they equal `lamina.features`'s.
    """

    protocol: ProbeName
    place: Place
    layer: int
    pool: str
    settings: dict[str, Setting]
    validation_top1: float
    """Accuracy on the training part: leave-one-out (kNN), or on a held-out share of each class (linear)."""
    top1: float
    """Accuracy on the test part."""
    interval: tuple[float, float]
    """95 % Wilson interval of `top1`; it speaks of the choice of test images alone."""


@dataclass(frozen=True)
class Peak:
    """The block with the most accurate probe, chosen on the training part; of equals the shallowest."""

    best: LayerScore
    last: LayerScore
    """The last block's output in the same pool."""
    blocks_after: int
    """Number of blocks after the best one."""
    plateau: tuple[int, int]
    """The shallowest and the deepest layer, in the same pool, whose accuracy on the training part is within
    one standard error of the peak's: where the peak may as well be."""
    gap: float
    """Test accuracy after the best block minus that after the last block."""
    gap_interval: tuple[float, float]
    """95 % interval of the gap, paired image by image (Agresti and Min, 2005)."""


@dataclass(frozen=True)
class ModelDepth:
    """One model: its scores from the embedded input to the last block, then last and fused, per protocol."""

    depth: int
    width: int
    n_train: int
    n_test: int
    scores: tuple[LayerScore, ...]
    peaks: Mapping[ProbeName, Peak]
    notes: tuple[str, ...]

    def curve(self, protocol: ProbeName, pool: str) -> tuple[LayerScore, ...]:
        """The blocks' scores, shallow to deep; none where the model has no such pool."""
        return tuple(s for s in self.scores if (s.protocol, s.place, s.pool) == (protocol, "block", pool))


@dataclass(frozen=True)
class DepthResult(Result):
    """Several models on the same labelled images."""

    models: Mapping[str, ModelDepth]
    data: str
    classes: int
    majority: float
    """Test accuracy of always answering the most frequent training class."""
    protocols: tuple[ProbeName, ...]
    images: int | None
    """Largest number of images of each part; None for all."""
    seed: int


def run(session: AnalysisSession, options: LayerProbesOptions) -> DepthResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    network = network_options(options.network, options.heads)
    return analyze_depth(
        {name: load_encoder(spec, encoder=network) for name, spec in session.models.items()},
        session.data,
        images=options.images,
        protocols=options.protocols,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        seed=options.seed,
        progress=session.progress,
    )


@torch.inference_mode()
def analyze_depth(
    models: Mapping[str, Backbone],
    data: str | Path | LabelledData,
    *,
    images: int | None = 1000,
    protocols: Sequence[ProbeName] = ("knn", "linear"),
    knn: KNNOptions = KNN,
    linear: LinearOptions = LINEAR,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> DepthResult:
    """Fit probes to every layer of each model, and find the best block and its gap to the last one.

    One pass through each encoder serves all layers. A layer's vector is the mean of its patch tokens, and the
    class token where there is one (but for the embedded input, where it is the same for all images). All are
    held at once: 2,000 images through 24 blocks of width 1024 take 400 MB.

    Args:
        models: backbones by name; each gets the images at its own size.
        data: labelled images as `open_labelled` knows them.
        images: at most so many of each part, drawn by `seed`; None takes all.
        protocols: "knn", "linear" or both.
        knn, linear: the settings that are searched.
        batch_size, workers, device: see `ComputeOptions`.
        seed: random seed of the choice of images and of the linear probe's validation part.
        progress: called with what is being done, how much of it is done, and how much there is.

    Raises:
        LaminaError: where there is no model, protocol or label, or too few images are left of a class.
    """
    if not models or not protocols or set(protocols) - {"knn", "linear"}:
        raise LaminaError("name at least one model, and the protocols knn, linear or both")
    whole = open_labelled(data)
    labelled = _drawn(whole, images, seed)
    sweep = _Sweep(tuple(protocols), knn, linear, seed)
    found, majority = {}, 0.0
    for name, model in models.items():
        compute = ComputeOptions(batch_size, workers, device, _reading(progress, f"{name}: images"))
        train, test = (_vectors(model, part, compute) for part in (labelled.train, labelled.test))
        probed = _probed(model, train, test, sweep, _named(progress, f"{name}: probes"))
        found[name] = replace(probed, notes=(*whole.notes, *whole.trained_on(model), *probed.notes))
        majority = float(test.known_labels.eq(train.known_labels.mode().values).double().mean())
    n = len(labelled.classes)
    return DepthResult(found, labelled.name, n, majority, sweep.protocols, images, seed)


@dataclass(frozen=True)
class _Sweep:
    """The probes that are fitted to every layer."""

    protocols: tuple[ProbeName, ...]
    knn: KNNOptions
    linear: LinearOptions
    seed: int

    def probe(self, protocol: ProbeName) -> Probe:
        if protocol == "knn":
            return partial(probe_knn, options=self.knn)
        return partial(probe_linear, options=self.linear, seed=self.seed)

    def chosen_on(self, protocol: ProbeName, labels: Int64[Tensor, "n"]) -> int:
        """How many training images a validation accuracy counts."""
        if protocol == "knn":
            return min(len(labels), self.knn.selection_samples)
        return int(stratified_split(labels, self.linear.validation_share, self.seed).sum())


def paired_interval(better: int, worse: int, n: int) -> tuple[float, float]:
    """95 % interval of (better - worse) / n, of n pairs of which so many differ one way and the other.

    Wald's with half a pair added to each of the four counts, cut where it goes beyond -1 or 1 (Agresti and
    Min, 2005).
    """
    b, c, n_plus = better + 0.5, worse + 0.5, n + 2
    half = float(ndtri(0.975)) * (b + c - (b - c) ** 2 / n_plus) ** 0.5 / n_plus
    return max(-1.0, (b - c) / n_plus - half), min(1.0, (b - c) / n_plus + half)


def _drawn(labelled: LabelledData, images: int | None, seed: int) -> LabelledData:
    train, test = subsample(labelled.train, images, seed), subsample(labelled.test, images, seed)
    try:
        return LabelledData(labelled.name, train, test)
    except LaminaError as error:
        raise LaminaError(f"{images} images of each part are too few: {error}; take more images") from error


def _named(progress: Progress | None, what: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, what)


def _reading(progress: Progress | None, what: str) -> Callable[[int, int, float], None] | None:
    return None if progress is None else lambda done, of, _: progress(what, done, of)


def _vectors(model: Backbone, source: Source, compute: ComputeOptions) -> FeatureTable:
    """Of the images of one part, read as the model's own recipe says."""
    model = model.to(choose_device(compute.device))
    return collect_for(model, source, {"": layer_vectors(model)}, compute)


def _probed(
    model: Backbone,
    train: FeatureTable,
    test: FeatureTable,
    sweep: _Sweep,
    progress: Callable[[int, int], None] | None,
) -> ModelDepth:
    depth, width = model.encoder.depth, model.encoder.width
    scores: list[LayerScore] = []
    peaks: dict[ProbeName, Peak] = {}
    unread = [*train.unread("training images"), *test.unread("test images")]
    notes: list[tuple[ProbeName, FeatureKey, str]] = []
    for protocol in sweep.protocols:
        found, right = [], []
        for key in train.vectors:
            score, hits, remarks = _score(protocol, sweep.probe(protocol), key, train, test, depth)
            found.append(score)
            right.append(hits)
            notes += [(protocol, key, remark) for remark in remarks]
            if progress is not None:
                progress(len(scores) + len(found), len(train.vectors) * len(sweep.protocols))
        peaks[protocol] = _peak(found, right, depth, sweep.chosen_on(protocol, train.known_labels))
        scores += found
    remarks = (*unread, *grouped_notes(notes, len(train.vectors)))
    return ModelDepth(depth, width, len(train.index), len(test.index), tuple(scores), peaks, remarks)


def grouped_notes(notes: Sequence[tuple[ProbeName, FeatureKey, str]], n: int) -> Iterator[str]:
    """Each note once, after the probe and the features that it is about (`group_notes`, of `n` kinds)."""
    about: dict[ProbeName, list[tuple[str, str]]] = {}
    for protocol, key, note in notes:
        place = key.features if key.features in ("last", "fused") else f"block {key.features}"
        name = f"{place.replace('block -1', 'input')} ({key.pool})"
        about.setdefault(protocol, []).append((name, note))
    for protocol, each in about.items():
        yield from (f"{protocol}, {remark}" for remark in group_notes(each, n))


def _score(
    protocol: ProbeName, probe: Probe, key: FeatureKey, train: FeatureTable, test: FeatureTable, depth: int
) -> tuple[LayerScore, Tensor, tuple[str, ...]]:
    """The score, which test images were right, and the probe's remarks."""
    place: Place = "last" if key.features == "last" else "fused" if key.features == "fused" else "block"
    fitted, tested = train.vectors[key], test.vectors[key]
    if place == "block":
        fitted, tested = standardised(fitted, tested)
    result = probe(fitted, train.known_labels, tested)
    hits = result.predictions == test.known_labels
    n, correct = len(hits), int(hits.sum())
    layer = int(key.features) if place == "block" else depth - 1
    accuracy, interval = correct / n, wilson_interval(correct, n)
    score = LayerScore(
        protocol, place, layer, key.pool, result.settings, result.validation_top1, accuracy, interval
    )
    return score, hits, result.notes


def _peak(scores: Sequence[LayerScore], hits: Sequence[Tensor], depth: int, n_chosen_on: int) -> Peak:
    blocks = [i for i, score in enumerate(scores) if score.place == "block"]
    best = max(blocks, key=lambda i: scores[i].validation_top1)  # the first of equals
    pool = scores[best].pool
    (last,) = (i for i in blocks if scores[i].layer == depth - 1 and scores[i].pool == pool)
    gap = scores[best].top1 - scores[last].top1
    better, worse = int((hits[best] & ~hits[last]).sum()), int((hits[last] & ~hits[best]).sum())
    interval = paired_interval(better, worse, len(hits[best])) if best != last else (0.0, 0.0)
    top = scores[best].validation_top1
    floor = top - (top * (1 - top) / n_chosen_on) ** 0.5 - 1e-12
    near = [scores[i].layer for i in blocks if scores[i].pool == pool and scores[i].validation_top1 >= floor]
    after = depth - 1 - scores[best].layer
    return Peak(scores[best], scores[last], after, (min(near), max(near)), gap, interval)
