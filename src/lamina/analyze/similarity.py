"""Similarity of layers within a model and between models, by debiased linear CKA."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations_with_replacement, zip_longest
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lamina.analyze.catalog import SimilarityOptions
from lamina.analyze.models import ModelOnImages
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.core.errors import LaminaError
from lamina.features.pooling import layer_vectors
from lamina.interop.backbone import Pool

FEWEST = 4
"""Images of which the unbiased estimator can be formed: its terms are over four different ones."""


def unbiased_hsic(grams: Float64[Tensor, "L mm"]) -> Float64[Tensor, "L L"]:
    """Hilbert-Schmidt independence criterion of all pairs of features, without bias; about 0 where two are
    independent. `grams` are their flattened `u_centred_gram`.

    Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, equation 5: with K and L the
    kernels x x^T and y y^T but for zeros on their diagonals, and 1 the vector of m ones,

        (tr(K L) + 1'K1 1'L1 / ((m - 1)(m - 2)) - 2 1'K L1 / (m - 2)) / (m (m - 3)).
    """
    m = round(grams.shape[1] ** 0.5)
    hsic: Tensor = grams @ grams.T / (m * (m - 3))
    return hsic


def debiased_cka(hsic: Float64[Tensor, "L L"]) -> Float64[Tensor, "L L"]:
    """Debiased linear CKA of all pairs: HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)) of `unbiased_hsic`.

    1 for features that a rotation, a shift and a scale make equal, about 0 for independent ones, whatever m
    and the widths are; never above 1.

    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, arXiv 1905.00414;
    debiased as Nguyen et al., "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021, arXiv
    2010.15327, do. NaN where the features of all images are the same.
    """
    scale = hsic.diagonal().sqrt()
    cka: Tensor = hsic / torch.outer(scale, scale)
    return cka.clamp(max=1.0)  # rounding goes beyond


def u_centred_gram(features: Float[Tensor, "m d"]) -> Float64[Tensor, "m m"]:
    """x x^T with a zero diagonal, its rows, columns and sum taken off so that those of every image vanish.

    The inner product of two of these over m (m - 3) is `unbiased_hsic` (Szekely and Rizzo, "Partial distance
    correlation with methods for dissimilarities", 2014, section 2). It does not change with the features'
    mean, which is taken off first for accuracy; zero where they differ by less than rounding of float32.
    """
    m = len(features)
    if m < FEWEST:
        raise LaminaError(f"the unbiased estimator needs {FEWEST} images, not {m}; take more")
    rows = features.cpu().double()
    centred = rows - rows.mean(dim=0)
    if centred.square().sum() <= 1e-12 * rows.square().sum():
        return torch.zeros(m, m, dtype=torch.float64)
    gram = (centred @ centred.T).fill_diagonal_(0)
    sums = gram.sum(dim=0) / (m - 2)
    return (gram - sums - sums[:, None] + sums.sum() / (m - 1)).fill_diagonal_(0)


@dataclass(frozen=True)
class Pair:
    """Two models, or one with itself: a row for each layer of the first, a column for each of the second."""

    first: str
    second: str
    cka: tuple[tuple[float | None, ...], ...]
    """At most 1, about 0 (below it by chance) where independent; None where a layer is the same for all
    images."""


@dataclass(frozen=True)
class SimilarityResult(Result):
    """All pairs of models, on the same images."""

    layers: Mapping[str, tuple[int, ...]]
    """Layers of each model: outputs of blocks before the final norm; -1 is the embedded input."""
    pairs: tuple[Pair, ...]
    """Each pair once, the first model before the second."""
    pool: Pool
    n_images: int
    minibatches: tuple[int, ...]
    """Images in each."""

    def between(self, first: str, second: str) -> tuple[tuple[float | None, ...], ...]:
        """Rows for the layers of `first`, columns for those of `second`."""
        for pair in self.pairs:
            if (pair.first, pair.second) == (first, second):
                return pair.cka
            if (pair.first, pair.second) == (second, first):
                return tuple(zip(*pair.cka, strict=True))
        raise LaminaError(f"there are no models {first!r} and {second!r}; there are {', '.join(self.layers)}")


def run(session: AnalysisSession, options: SimilarityOptions) -> SimilarityResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    return analyze_similarity(session.open_models(), pool=options.pool)


@torch.inference_mode()
def analyze_similarity(
    models: Mapping[str, ModelOnImages], *, pool: Pool = "mean", minibatch: int = 256
) -> SimilarityResult:
    """Debiased linear CKA between all layers of all models.

    Of each minibatch the unbiased HSIC of all pairs of layers is formed, and CKA of their means over
    minibatches, weighted by images (Nguyen et al., 2021, equation 2). That has no bias for any size of
    minibatch, and less noise for larger ones: the default takes up to 511 images at once, and memory does not
    grow beyond it (L layers of all models: at most 8 L (2 minibatch)^2 bytes).

    Args:
        models: models by name, with the same images in the same order; sizes and channels may differ.
        pool: "mean" of the patch tokens, or the "cls" token (the mean of several), which has no embedded
            input: that is the same for all images.
        minibatch: images at a time, from this to twice as many less one; whatever the batches' sizes are.

    Raises:
        LaminaError: where there is no model, fewer than 4 images or a smaller minibatch, a model has no such
            pool or no finite features, or several models have not the same keys.
    """
    if not models:
        raise LaminaError("similarity needs at least one model")
    if minibatch < FEWEST:
        raise LaminaError(
            f"minibatch {minibatch} is too small; the unbiased estimator needs {FEWEST} or more"
        )
    layers = {name: _layers(name, model, pool) for name, model in models.items()}
    sums = torch.zeros(())
    sizes = []
    chunks = [_chunks(name, model, layers[name], pool, minibatch) for name, model in models.items()]
    for parts in zip_longest(*chunks):
        _check_same(list(models), parts)
        grams = torch.stack([u_centred_gram(x).flatten() for part in parts for x in part.features])
        sizes.append(len(parts[0].features[0]))
        sums = sums + sizes[-1] * unbiased_hsic(grams)
    cka = debiased_cka(sums / sum(sizes))
    return SimilarityResult(layers, _pairs(layers, cka), pool, sum(sizes), tuple(sizes))


class _Chunk(NamedTuple):
    keys: Int64[Tensor, "m"] | None
    features: tuple[Float[Tensor, "m d"], ...]
    """One matrix for each layer."""


def _layers(name: str, model: ModelOnImages, pool: Pool) -> tuple[int, ...]:
    if pool not in model.backbone.pools:
        has = " or ".join(model.backbone.pools)
        raise LaminaError(f"{name} has no pool {pool!r}; take {has}")
    return tuple(range(-1 if pool == "mean" else 0, model.backbone.encoder.depth))


def _chunks(
    name: str, model: ModelOnImages, layers: tuple[int, ...], pool: Pool, minibatch: int
) -> Iterator[_Chunk]:
    """Minibatches, cut anew from the model's batches; the last one takes what is left over."""
    vectors = layer_vectors(model.backbone)
    held: _Chunk | None = None
    for batch in model.batches:
        found = vectors(batch.images)
        features = tuple(found[str(layer), pool].float().cpu() for layer in layers)
        if bad := [layer for layer, x in zip(layers, features, strict=True) if not x.isfinite().all()]:
            raise LaminaError(f"features of layer {bad[0]} of {name} are not finite")
        more = _Chunk(None if batch.keys is None else batch.keys.cpu(), features)
        held = more if held is None else _joined(held, more)
        while len(held.features[0]) >= 2 * minibatch:
            yield _cut(held, slice(0, minibatch))
            held = _cut(held, slice(minibatch, None))
    if held is None or len(held.features[0]) < FEWEST:
        raise LaminaError(f"{name} has fewer than {FEWEST} images; the unbiased estimator needs more")
    yield held


def _joined(one: _Chunk, other: _Chunk) -> _Chunk:
    keys = None if one.keys is None or other.keys is None else torch.cat([one.keys, other.keys])
    return _Chunk(keys, tuple(torch.cat(pair) for pair in zip(one.features, other.features, strict=True)))


def _cut(chunk: _Chunk, part: slice) -> _Chunk:
    return _Chunk(None if chunk.keys is None else chunk.keys[part], tuple(x[part] for x in chunk.features))


def _check_same(names: list[str], parts: tuple[_Chunk | None, ...]) -> None:
    """The same images in the same order; a single model's need no keys."""
    first = parts[0]
    for name, part in zip(names[1:], parts[1:], strict=True):
        if first is None or part is None:
            raise LaminaError(f"{names[0]} and {name} have different numbers of images; give them the same")
        if first.keys is None or part.keys is None:
            raise LaminaError("images without keys may differ between models; give batches with keys")
        if not torch.equal(first.keys, part.keys):
            raise LaminaError(f"{names[0]} and {name} do not see the same images in the same order")


def _pairs(layers: Mapping[str, tuple[int, ...]], cka: Float64[Tensor, "L L"]) -> tuple[Pair, ...]:
    ends, start = {}, 0
    for name, own in layers.items():
        ends[name] = slice(start, start + len(own))
        start += len(own)
    return tuple(
        Pair(
            one,
            other,
            tuple(
                tuple(None if math.isnan(value) else value for value in row)
                for row in cka[ends[one], ends[other]].tolist()
            ),
        )
        for one, other in combinations_with_replacement(layers, 2)
    )
