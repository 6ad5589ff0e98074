"""The number of dimensions that features use, layer by layer: RankMe, effective rank, alpha-ReQ, LiDAR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor

from lamina.analyze.catalog import RankOptions
from lamina.analyze.measures.rank import Moments, PowerLaw, Scatters
from lamina.analyze.models import ModelOnImages
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.data.augment.crops import RandomResizedCrop
from lamina.features.pooling import layer_vectors

Place = Literal["block", "last", "fused"]


@dataclass(frozen=True)
class RankScore:
    """The numbers of one kind of features.

    "block" are the un-normed outputs of block `layer` (-1: the embedded input), "last" those of the last
    block after the final norm, "fused" the backbone's fusion of its taps after that norm.
    """

    place: Place
    layer: int
    pool: str
    rankme: float
    effective_rank: float
    power_law: PowerLaw | None
    """alpha-ReQ; None where its range holds too few ranks, or the spectrum ends within it."""
    lidar: float | None
    """None where no views were computed."""


@dataclass(frozen=True)
class ModelRank:
    """One model: patch means of every layer, then last and fused in every pool."""

    depth: int
    width: int
    n_images: int
    scores: tuple[RankScore, ...]
    notes: tuple[str, ...]

    @property
    def most(self) -> int:
        """No rank is larger: channels, or images where these are fewer."""
        return min(self.width, self.n_images)

    @property
    def curve(self) -> tuple[RankScore, ...]:
        """The blocks' scores, shallow to deep."""
        return tuple(score for score in self.scores if score.place == "block")

    @property
    def final(self) -> tuple[RankScore, ...]:
        """The scores of the final features, which a user takes."""
        return tuple(score for score in self.scores if score.place != "block")


@dataclass(frozen=True)
class RankResult(Result):
    """Several models, each on its images."""

    models: Mapping[str, ModelRank]
    views: int
    view_scale: tuple[float, float]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Everything, in plain lists and numbers; power laws by their fields' names."""
        found = super().to_json()
        for model in found["models"].values():
            for score in model["scores"]:
                law = score["power_law"]
                score["power_law"] = None if law is None else law._asdict()
        return found


def run(session: AnalysisSession, options: RankOptions) -> RankResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    return analyze_rank(session.open_models(), views=options.views, seed=options.seed)


@torch.inference_mode()
def analyze_rank(
    models: Mapping[str, ModelOnImages],
    *,
    views: int = 0,
    view_scale: tuple[float, float] = (0.2, 1.0),
    seed: int = 0,
) -> RankResult:
    """The ranks of every layer's patch means, and of all final features that each model has.

    Args:
        models: models by name, and their images.
        views: LiDAR's views of each image, 10 say; 0 leaves LiDAR out. They are crops of the image as the
            model is given it, resized back: MAE's, of a random share of its area and aspect ratio. Each is
            a function of the seed, the image's key and the number of the view.
        view_scale: smallest and largest share of the area.
        seed: random seed of the views.

    Raises:
        LaminaError: where there is no model or a single image, views are 1 or images have no keys for them.
    """
    if not models:
        raise LaminaError("ranks need at least one model")
    if views < 0 or views == 1:
        raise LaminaError(f"LiDAR needs 2 or more views of an image, not {views}; give 0 to leave LiDAR out")
    cropped = _Views(views, view_scale, seed)
    found = {name: _model(name, model, cropped) for name, model in models.items()}
    return RankResult(found, views, view_scale, seed)


class _Views(NamedTuple):
    n: int
    scale: tuple[float, float]
    seed: int

    def of(self, batch: Batch) -> Iterator[Shaped[Tensor, "B C H W"]]:
        """Each view of all images of a batch."""
        if self.n and batch.keys is None:
            raise LaminaError("views are drawn by the images' keys; give batches with keys, or views 0")
        height, width = batch.images.shape[-2:]
        crop = RandomResizedCrop((height, width), self.scale)
        for view in range(self.n):
            assert batch.keys is not None
            keys = sample_keys(self.seed, view, batch.keys.cpu())
            draws = uniform(keys, crop.n_draws, Purpose.VIEW).tolist()
            yield torch.stack([crop(image, d) for image, d in zip(batch.images, draws, strict=True)])


def _model(name: str, model: ModelOnImages, views: _Views) -> ModelRank:
    backbone = model.backbone
    vectors = layer_vectors(backbone)
    wanted = {
        (kind, pool)
        for kind in (*map(str, range(-1, backbone.encoder.depth)), *backbone.kinds)
        for pool in (backbone.pools if kind in backbone.kinds else ("mean",))
    }
    moments: dict[tuple[str, str], Moments] = {}
    scatters: dict[tuple[str, str], Scatters] = {}
    for batch in model.batches:
        for key, part in vectors(batch.images).items():
            if key in wanted:
                moments.setdefault(key, Moments(part.shape[1])).add(part)
        seen = [vectors(images) for images in views.of(batch)]
        for key in wanted if seen else ():
            each = torch.stack([view[key] for view in seen], dim=1)
            scatters.setdefault(key, Scatters(each.shape[2])).add(each)
    n, width = max((m.n for m in moments.values()), default=0), backbone.encoder.width
    if n < 2:
        raise LaminaError(f"{name} has {n} image(s), too few for a rank; take some hundreds")
    if bad := [key for key, m in moments.items() if not torch.isfinite(m.scatter).all()]:
        raise LaminaError(f"features {bad[0][0]} ({bad[0][1]}) of {name} are not finite")
    scores = tuple(_score(key, moments[key], scatters.get(key)) for key in moments)
    bound = f"{n} images are fewer than {width} channels: no rank can be larger than {n}; take more images"
    return ModelRank(backbone.encoder.depth, width, n, scores, (bound,) if n < width else ())


def _score(key: tuple[str, str], moments: Moments, scatters: Scatters | None) -> RankScore:
    kind, pool = key
    place, layer = (kind, -1) if kind in ("last", "fused") else ("block", int(kind))
    try:
        law = moments.power_law()
    except LaminaError:
        law = None
    return RankScore(
        place,  # type: ignore[arg-type]  # one of the three
        layer,
        pool,
        rankme=moments.rankme(),
        effective_rank=moments.effective_rank(),
        power_law=law,
        lidar=None if scatters is None else scatters.lidar(),
    )
