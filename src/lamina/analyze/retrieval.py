"""Nearest images by the cosine of their features, and how often they share a class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from lamina.analyze.catalog import RetrievalOptions
from lamina.analyze.models import Images, ModelOnImages
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.analyze.shown_images import Picture, chosen_keys, keys_of, name_of, picture_of
from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import device_of
from lamina.core.text import printable
from lamina.interop.backbone import FeatureKind, Pool

SAME_IMAGE = 0.999
_DETAIL_PX = 32
_MAX_CELLS = 1 << 22  # similarities sorted at once: 32 MiB of float64
_THUMBNAIL_PX = 128


@dataclass(frozen=True)
class RetrievedImage:
    """An image among the queries and neighbours that are shown."""

    key: int
    """Its index in the source."""
    name: str
    label: str | None
    """Its class, where the data have classes."""
    cosine: float
    """Cosine with the query; 1 for the query itself."""


@dataclass(frozen=True)
class Query:
    """A query image and its neighbours, nearest first."""

    image: RetrievedImage
    neighbours: tuple[RetrievedImage, ...]
    duplicates: int
    """Number of near-duplicates of the query, which are left out."""


@dataclass(frozen=True)
class RetrievalScores:
    """How often neighbours share the query's class, every image being a query once."""

    precision: float
    """Mean over queries of the share of the k nearest with the query's class."""
    mean_average_precision: float
    """Mean over queries of the average precision of the ranking of all other images."""
    chance: float
    """Precision of a random order: mean over queries of the share of others with the query's class."""
    n_queries: int
    """Images that share their class with another one, near-duplicates aside; others are no queries."""


@dataclass(frozen=True)
class ModelRetrieval:
    """The queries of one model with their neighbours, and its scores where there are labels."""

    n_images: int
    channels: int
    duplicates: int
    """Number of pairs of near-duplicates among the images."""
    scores: RetrievalScores | None
    queries: tuple[Query, ...]
    pictures: Mapping[int, Picture] = field(repr=False, compare=False)
    """(H, W, 3) bytes of each image in the sheet, by key; not in the JSON."""


@dataclass(frozen=True)
class RetrievalResult(Result):
    """Several models, the same queries."""

    models: Mapping[str, ModelRetrieval]
    k: int
    features: FeatureKind
    pool: Pool
    centred: bool
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures; names without control characters."""
        models = {name: replace(model, pictures={}) for name, model in self.models.items()}
        found = asdict(replace(self, models=models))
        for model in found["models"].values():
            del model["pictures"]
        return {**found, "near_duplicates_above": SAME_IMAGE, "near_duplicates_by": "pixels"}


class Ranking(NamedTuple):
    """Other images in order of similarity, a row for each query; what is left out comes last."""

    order: Int64[Tensor, "q n"]
    cosines: Float64[Tensor, "q n"]
    """In that order; minus infinity for the query itself and its near-duplicates."""


def run(session: AnalysisSession, options: RetrievalOptions) -> RetrievalResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    models = session.open_models()
    return analyze_retrieval(models, queries=options.queries, k=options.k, seed=options.seed)


@torch.inference_mode()
def analyze_retrieval(
    models: Mapping[str, ModelOnImages],
    *,
    queries: int = 4,
    k: int = 5,
    features: FeatureKind = "last",
    pool: Pool = "mean",
    centred: bool = True,
    seed: int = 0,
) -> RetrievalResult:
    """The `k` images nearest to each query by the cosine of pooled features, and precision@k and mAP.

    The query itself and near-duplicates of it are left out. Near-duplicates are found by their pixels,
    averaged to 32 x 32 (correlation above 0.999): found by features, a poor model's mistakes would be left
    out.

    Args:
        models: models with their images; all features of a model are held at once.
        queries: number of queries that are shown, chosen by `seed`: the same for all models. Scores are over
            all images as queries.
        k: number of neighbours of each query.
        features: "last" or "fused".
        pool: "mean" of the patch tokens, or "cls".
        centred: take off the mean of all images first; features that share a large part, as masked
            autoencoders' do, are all nearly parallel without.
        seed: random seed of the choice of queries.

    Raises:
        LaminaError: where there is no model, query or neighbour, no more than `k` images, or a model lacks
            the features.
    """
    if not models:
        raise LaminaError("name at least one model")
    if k < 1 or queries < 1:
        raise LaminaError(f"{queries} queries and {k} neighbours were requested; give 1 or more of both")
    found = {name: _sheet(model, queries, k, features, pool, centred, seed) for name, model in models.items()}
    return RetrievalResult(found, k, features, pool, centred, seed)


class UnitVectors(NamedTuple):
    """All images as unit vectors: of their features, and of their pixels, by which duplicates are found."""

    features: Float64[Tensor, "n D"]
    pixels: Float64[Tensor, "n K"]


def rankings(gallery: UnitVectors, rows: Int64[Tensor, "q"]) -> Iterator[tuple[Int64[Tensor, "s"], Ranking]]:
    """The rankings of the queries in `rows`, a slab of them at a time; of equals the first comes first."""
    size = max(1, _MAX_CELLS // len(gallery.features))
    for part in torch.split(rows, size):
        similarity = gallery.features[part] @ gallery.features.T
        # This leaves out the query too.
        similarity[gallery.pixels[part] @ gallery.pixels.T > SAME_IMAGE] = -torch.inf
        cosines, order = similarity.sort(dim=1, descending=True, stable=True)
        yield part, Ranking(order, cosines)


def pixel_units(images: Shaped[Tensor, "B C H W"]) -> Float64[Tensor, "B K"]:
    """Pixels averaged to 32 x 32, less the image's mean, as a unit vector: cosines are correlations.

    Flat images, which have no correlation, are duplicates of each other by a coordinate of their own.
    """
    small = F.interpolate(unit_float(images).double(), size=(_DETAIL_PX, _DETAIL_PX), mode="area").flatten(1)
    small = small - small.mean(dim=1, keepdim=True)
    flat = small.square().mean(dim=1).sqrt() < 1e-3
    unit = F.normalize(small, dim=1).masked_fill(flat[:, None], 0.0)
    return torch.cat([unit, flat.double()[:, None]], dim=1)


def score_rankings(gallery: UnitVectors, labels: Int64[Tensor, "n"], k: int) -> RetrievalScores | None:
    """Precision@k and mean average precision, each image asking for the others of its class.

    A query with fewer than `k` images left is scored on those; one without another image of its class is
    left out. None where no query is left.
    """
    precisions, averages, chances = [], [], []
    for part, (order, cosines) in rankings(gallery, torch.arange(len(labels))):
        there = cosines > -torch.inf
        right = ((labels[order] == labels[part, None]) & there).double()
        has_match = right.sum(dim=1) > 0
        right, there = right[has_match], there[has_match].double()
        rank = torch.arange(1, len(labels) + 1, dtype=torch.float64)
        precisions.append(right[:, :k].sum(dim=1) / there[:, :k].sum(dim=1))
        averages.append((right * right.cumsum(dim=1) / rank).sum(dim=1) / right.sum(dim=1))
        chances.append(right.sum(dim=1) / there.sum(dim=1))
    found = [torch.cat(parts) for parts in (precisions, averages, chances)]
    if not len(found[0]):
        return None
    precision, average, chance = (float(values.mean()) for values in found)
    return RetrievalScores(precision, average, chance, len(found[0]))


def _sheet(
    model: ModelOnImages, queries: int, k: int, features: FeatureKind, pool: Pool, centred: bool, seed: int
) -> ModelRetrieval:
    keys, vectors, pixels, labels = _features(model, features, pool)
    if k >= len(keys):
        raise LaminaError(
            f"{len(keys)} images have at most {len(keys) - 1} neighbours, not {k}; set k, or give more images"
        )
    vectors = vectors.double() - centred * vectors.double().mean(dim=0)
    gallery = UnitVectors(F.normalize(vectors, dim=1), pixels)
    place = {key: i for i, key in enumerate(keys)}
    rows = torch.tensor([place[key] for key in chosen_keys(keys, queries, seed)])
    sheet: list[Query] = []
    for part, ranking in rankings(gallery, rows):
        for row, order, cosines in zip(part.tolist(), *ranking, strict=True):
            there = cosines[:k] > -torch.inf
            nearest = zip(order[:k][there].tolist(), cosines[:k][there].tolist(), strict=True)
            neighbours = tuple(_found(model, keys[i], labels, i, cosine) for i, cosine in nearest)
            left_out = int((cosines == -torch.inf).sum()) - 1
            sheet.append(Query(_found(model, keys[row], labels, row, 1.0), neighbours, left_out))
    scores = None if labels is None else score_rankings(gallery, labels, k)
    wanted = {image.key for query in sheet for image in (query.image, *query.neighbours)}
    pictures = _pictures(model, wanted)
    channels = model.backbone.encoder.in_chans
    return ModelRetrieval(len(keys), channels, _pairs(pixels), scores, tuple(sheet), pictures)


def _pairs(pixels: Float64[Tensor, "n K"]) -> int:
    """Number of pairs of near-duplicates."""
    slabs = torch.split(pixels, max(1, _MAX_CELLS // len(pixels)))
    return (sum(int((slab @ pixels.T > SAME_IMAGE).sum()) for slab in slabs) - len(pixels)) // 2


def _found(
    model: ModelOnImages, key: int, labels: Int64[Tensor, "n"] | None, i: int, cosine: float
) -> RetrievedImage:
    """An image with its name and class, as far as they are known."""
    label = None
    if labels is not None:
        known = model.batches.source.class_names if isinstance(model.batches, Images) else ()
        label = printable(known[int(labels[i])]) if known else str(int(labels[i]))
    return RetrievedImage(key, name_of(model, key), label, cosine)


def _pictures(model: ModelOnImages, wanted: set[int]) -> dict[int, Picture]:
    """The pixels of the images that are shown, by a second pass over all images."""
    found, done = {}, 0
    for batch in model.batches:
        for key, image in zip(keys_of(batch, done).tolist(), batch.images, strict=True):
            if key in wanted:
                found[key] = picture_of(image, _THUMBNAIL_PX)
        done += len(batch)
    return found


def _features(
    model: ModelOnImages, features: FeatureKind, pool: Pool
) -> tuple[list[int], Float[Tensor, "n D"], Float64[Tensor, "n K"], Int64[Tensor, "n"] | None]:
    """Keys, pooled features, pixels and labels of all images."""
    device = device_of(model.backbone)
    keys: list[int] = []
    labels: list[int] = []
    vectors, pixels = [], []
    for batch in model.batches:
        keys += keys_of(batch, len(keys)).tolist()
        images = batch.images.to(device)
        vectors.append(model.backbone(images, features).pooled(pool).float().cpu())
        pixels.append(pixel_units(batch.images.cpu()))
        labels += [] if batch.labels is None else batch.labels.tolist()
    if not vectors:
        raise LaminaError("there are no images; give one or more")
    found = torch.cat(vectors)
    if not torch.isfinite(found).all():
        raise LaminaError("features are not finite; check the weights file")
    return keys, found, torch.cat(pixels), torch.tensor(labels) if len(labels) == len(keys) else None
