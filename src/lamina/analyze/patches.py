"""Patch tokens: principal components as colours, outlier norms, cosines, attention of the class token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from lamina.analyze.catalog import PatchesOptions
from lamina.analyze.measures.attention import attention_probabilities
from lamina.analyze.measures.patch_maps import (
    CLIPPED,
    OUTLIER_SIGMAS,
    Norms,
    colours,
    cosines_to,
    foreground,
    mean_cosine,
    norm_outliers,
    principal,
    same_place,
)
from lamina.analyze.models import ModelOnImages
from lamina.analyze.output import Result
from lamina.analyze.session import AnalysisSession
from lamina.analyze.shown_images import (
    Map,
    Picture,
    chosen_keys,
    grid_map,
    keys_of,
    name_of,
    picture_of,
    rounded,
)
from lamina.core.errors import LaminaError
from lamina.core.frozen import device_of
from lamina.interop.backbone import Backbone


@dataclass(frozen=True)
class ShownImage:
    """One image's maps, each a row of numbers for each row of patches."""

    key: int
    """Its index in the source."""
    name: str
    red: Map
    green: Map
    blue: Map
    """First, second and third principal component, stretched to [0, 1]."""
    foreground: float
    """Share of the patches that have colours; 1 where the foreground is not separated."""
    norms: Map
    outliers: int
    cosines: Map
    """Cosine of each patch with the chosen one."""
    attention: Map | None
    """Attention of the class token in the last block, mean over heads, relative to its mean over patches."""
    attention_share: float | None
    """Share of that attention that goes to the patches; class tokens and registers get the rest."""
    picture: Picture = field(repr=False, compare=False)
    """The image as the model saw it, (H, W, 3) bytes; not in the JSON."""

    def to_json(self) -> dict[str, Any]:
        """All but the picture; maps to 4 digits."""
        found = {name: value for name, value in vars(self).items() if name != "picture"}
        return {name: rounded(value) if isinstance(value, tuple) else value for name, value in found.items()}


@dataclass(frozen=True)
class ModelPatches:
    """One model: numbers over all images, and maps of those that are shown."""

    grid: tuple[int, int]
    channels: int
    without_attention: str | None
    """Why there is no attention of a class token; None where there is."""
    at: tuple[int, int]
    """The chosen patch: row and column."""
    explained: tuple[float, float, float]
    """Share of the variance that each principal component explains, over the patches that have colours."""
    norms: Norms
    mean_cosine: float
    """Mean cosine of two different patches of an image, over all images."""
    shown: tuple[ShownImage, ...]

    def to_json(self) -> dict[str, Any]:
        """All but the pictures."""
        own = {name: value for name, value in vars(self).items() if name not in ("shown", "norms")}
        return {**own, "norms": asdict(self.norms), "shown": [image.to_json() for image in self.shown]}


@dataclass(frozen=True)
class PatchesResult(Result):
    """Several models on the same images."""

    models: Mapping[str, ModelPatches]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Numbers and maps, and how they were made; no pictures."""
        rules = {"outlier_sigmas": OUTLIER_SIGMAS, "clipped_percentiles": [100 * share for share in CLIPPED]}
        models = {name: model.to_json() for name, model in self.models.items()}
        return {"models": models, "seed": self.seed, **rules}


def run(session: AnalysisSession, options: PatchesOptions) -> PatchesResult:
    """The analysis as `lamina.analyze.catalog` lists it."""
    models = session.open_models()
    return analyze_patches(models, images=options.num_shown, at=options.at, seed=options.seed)


@torch.inference_mode()
def analyze_patches(
    models: Mapping[str, ModelOnImages],
    *,
    images: int = 6,
    at: tuple[int, int] | None = None,
    only_foreground: bool = False,
    seed: int = 0,
) -> PatchesResult:
    """Measure the patch tokens of the last block: norms before the final norm, all else after it.

    The colours are the first three principal components of the tokens of all shown images together, as
    DINOv2 (Oquab et al., 2023) shows them; outlier norms are found over all images of a model.

    Args:
        models: models with their images.
        images: number of images that are shown, chosen by `seed`: the same for all models.
        at: row and column of the patch whose cosines are shown, in the first model's grid (other grids take
            the patch at the same place); the centre by default.
        only_foreground: colours for the patches on one side of the first component alone, by principal
            components of their own.
        seed: random seed of the choice of images.

    Raises:
        LaminaError: where there is no model or image, or `at` is outside of the grid.
    """
    if not models:
        raise LaminaError("name at least one model")
    found: dict[str, ModelPatches] = {}
    first: tuple[int, int] | None = None
    for name, model in models.items():
        over_all = _one_pass(model, images, seed)
        first = first or over_all.grid
        chosen = same_place(at or (first[0] // 2, first[1] // 2), first, over_all.grid)
        found[name] = _maps_of(model, over_all, chosen, only_foreground)
    return PatchesResult(found, seed)


@dataclass(frozen=True)
class _Pass:
    """The results of one pass over all images."""

    grid: tuple[int, int]
    norms: Norms
    mean_cosine: float
    shown: Mapping[int, Tensor]
    """The images to show, by key."""


def _tokens(
    backbone: Backbone, images: Shaped[Tensor, "B C H W"]
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B N D"]]:
    """The last block's output, and its patches after the final norm, on the CPU."""
    encoder = backbone.encoder
    (last,) = encoder(images, (encoder.depth - 1,))
    return last.float().cpu(), encoder.norm(last)[:, encoder.n_prefix :].float().cpu()


def _one_pass(model: ModelOnImages, n: int, seed: int) -> _Pass:
    encoder, device = model.backbone.encoder, device_of(model.backbone)
    norms, prefix, cosines = [], [], []
    shown: dict[int, Tensor] = {}
    grid, done = encoder.grid, 0
    for batch in model.batches:
        keys, images = keys_of(batch, done), batch.images.to(device)
        grid, done = encoder.grid_of(images), done + len(batch)
        last, patches = _tokens(model.backbone, images)
        lengths = last.double().norm(dim=-1)
        if not torch.isfinite(lengths).all():
            raise LaminaError("tokens of the last block are not finite; check the weights file")
        norms.append(lengths[:, encoder.n_prefix :])
        prefix.append(lengths[:, : encoder.n_prefix])
        cosines.append(mean_cosine(patches))
        shown |= dict(zip(keys.tolist(), batch.images.cpu(), strict=True))
        shown = {key: shown[key] for key in chosen_keys(shown, n, seed)}
    if not norms:
        raise LaminaError("there are no images; give one or more")
    lengths_of_prefix = tuple(float(v) for v in torch.cat(prefix).mean(dim=0))
    return _Pass(
        grid, norm_outliers(torch.cat(norms), lengths_of_prefix), float(torch.cat(cosines).mean()), shown
    )


def _maps_of(
    model: ModelOnImages, over_all: _Pass, at: tuple[int, int], only_foreground: bool
) -> ModelPatches:
    """The maps of the images that are shown."""
    backbone = model.backbone
    images = torch.stack(list(over_all.shown.values())).to(device_of(model.backbone))
    last, patches = _tokens(backbone, images)
    norms = last[:, backbone.encoder.n_prefix :].double().norm(dim=-1)
    cosines = cosines_to(patches, at[0] * over_all.grid[1] + at[1])
    hues, inside, explained = _coloured(patches, over_all.grid, only_foreground)
    attention, why = _class_attention(backbone, images)
    shown = []
    for i, (key, image) in enumerate(over_all.shown.items()):
        red, green, blue = (grid_map(hues[i, :, c], over_all.grid) for c in range(3))
        maps = {"red": red, "green": green, "blue": blue, "norms": grid_map(norms[i], over_all.grid)}
        shown.append(
            ShownImage(
                **maps,
                key=key,
                name=name_of(model, key),
                foreground=float(inside[i].double().mean()),
                outliers=int((norms[i] > over_all.norms.threshold).sum()),
                cosines=grid_map(cosines[i], over_all.grid),
                attention=None
                if attention is None
                else grid_map(attention[i] / attention[i].mean(), over_all.grid),
                attention_share=None if attention is None else float(attention[i].sum()),
                picture=picture_of(image),
            )
        )
    return ModelPatches(
        grid=over_all.grid,
        channels=backbone.encoder.in_chans,
        without_attention=why,
        at=at,
        explained=explained,
        norms=over_all.norms,
        mean_cosine=over_all.mean_cosine,
        shown=tuple(shown),
    )


def _coloured(
    patches: Float[Tensor, "B N D"], grid: tuple[int, int], only_foreground: bool
) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
    """Colours (B, N, 3), the patches that have them (B, N), and the variance explained."""
    b, n, _ = patches.shape
    values, share = principal(patches.flatten(0, 1))
    inside = torch.ones(b, n, dtype=torch.bool)
    if only_foreground:
        inside = foreground(values[:, 0].reshape(b, n), grid)
        own, share = principal(patches[inside])
        values = torch.zeros_like(values)
        values[inside.flatten()] = own
    r, g, b_ = (float(v) for v in share)
    return colours(values.reshape(b, n, 3), inside), inside, (r, g, b_)


def _class_attention(
    backbone: Backbone, images: Shaped[Tensor, "B C H W"]
) -> tuple[Float64[Tensor, "B N"] | None, str | None]:
    """What patches get of the class token's attention in the last block, mean over heads (and class tokens).

    Or why there is none.
    """
    encoder = backbone.encoder
    if encoder.n_class == 0:
        return None, "no class token"
    try:
        (rows,) = attention_probabilities(backbone, images, (encoder.depth - 1,))
    except LaminaError as error:
        return None, str(error)
    taken = rows[:, :, : encoder.n_class, encoder.n_prefix :].mean(dim=(1, 2))
    return taken.cpu().double().clamp_min(torch.finfo(torch.float32).tiny), None
