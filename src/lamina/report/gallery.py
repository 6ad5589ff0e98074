"""The pictures of a run at one step: reconstructions, maps of patch features, nearest neighbours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.core.batch import Batch, unit_float
from lamina.core.errors import LaminaError
from lamina.core.rng import permutation, sample_keys
from lamina.data.augment.crops import CenterCrop
from lamina.data.decode.unreadable import Unreadable
from lamina.data.sources import Source
from lamina.features.nearest import nearest
from lamina.mim import MIM
from lamina.recipes.recipe import Recipe
from lamina.report.model_pictures import Reconstruction, mask_and_reconstruct, patch_features, pca_map
from lamina.report.picture_store import AlbumWriter

MOST_NEIGHBOURS = 6


@dataclass(frozen=True)
class Gallery:
    """The images that a run's pictures are made of; the same ones for as long as the run lasts.

    The first `n_shown` are reconstructed, mapped and used as queries; all of them are the pool of the
    neighbour sheet. `names` and, where there are any, `labels` (class names) belong to the images.
    """

    batch: Batch
    names: Sequence[str]
    labels: Sequence[str] = ()
    n_shown: int = 8

    def __post_init__(self) -> None:
        if len(self.names) != len(self.batch) or (self.labels and len(self.labels) != len(self.batch)):
            raise LaminaError(
                f"a gallery of {len(self.batch)} images needs as many names and labels, "
                f"not {len(self.names)} and {len(self.labels)}"
            )

    @classmethod
    def of_batch(cls, batch: Batch, most: int = 64) -> Gallery:
        """Images of a training batch as they were cropped, copied to the CPU, with numbers for names."""
        kept = next(batch.split(most)).to("cpu", non_blocking=False)
        images = kept.images.clone()
        kept = Batch(images, None if kept.keys is None else kept.keys.clone())
        return cls(kept, [f"training crop {i + 1}" for i in range(len(images))])

    @classmethod
    def of_source(cls, source: Source, recipe: Recipe, most: int = 64, seconds: float = 3.0) -> Gallery:
        """Images of a source by their names, centre-cropped: the same ones for every run on that source.

        They are drawn at random, at most `most`; once eight are there, no more than `seconds` are spent
        (large photographs are slow to decode). Unreadable ones are passed over.
        """
        images, kept, started = [], [], time.monotonic()
        for i in permutation(0, 0, len(source))[: 2 * most].tolist():
            with suppress(Unreadable):
                images.append(crop_for(recipe, source.read(i, recipe.data.decoding(recipe.encoder.in_chans))))
                kept.append(i)
            if len(kept) == most or (len(kept) >= 8 and time.monotonic() - started > seconds):
                break
        if not kept:
            raise LaminaError("no image could be read for the report's pictures")
        keys = sample_keys(0, 0, torch.tensor(kept))
        labels = source.labels
        return cls(
            Batch(torch.stack(images), keys),
            [source.name(i) for i in kept],
            [] if labels is None else [source.class_names[labels[i]] for i in kept],
        )


def crop_for(recipe: Recipe, image: Shaped[Tensor, "C H W"]) -> Float[Tensor, "C h w"]:
    """A stored image as evaluations show it to a recipe's encoder: its size, a centre crop, on [0, 1]."""
    size = recipe.encoder.image_size
    if size is None:
        raise LaminaError("the recipe has no image_size; use the recipe of a run")
    crop = CenterCrop((size[0], size[-1]), recipe.data.eval_crop_share)
    return unit_float(crop(image)[None])[0]


@dataclass(frozen=True)
class Seen:
    """What a method makes of a gallery at one step, on the CPU: all that its pictures are drawn from."""

    gallery: Gallery
    step: int
    reconstruction: Reconstruction
    features: Float[Tensor, "B N D"]
    grid: tuple[int, int]

    @classmethod
    def of(cls, method: MIM, gallery: Gallery, step: int) -> Seen:
        """Two forward passes: of the shown images with patches hidden, and of all images whole."""
        n = min(gallery.n_shown, len(gallery.batch))
        made = mask_and_reconstruct(method, next(gallery.batch.split(n)))
        features = patch_features(method, gallery.batch)
        return cls(gallery, step, made, features, method.encoder.grid_of(gallery.batch.images))


def write_pictures(method: MIM, gallery: Gallery, folder: Path, step: int) -> None:
    """Make all pictures of a method at this step and keep them in `folder`."""
    draw(Seen.of(method, gallery, step), folder)


def draw(seen: Seen, folder: Path) -> None:
    """Keep the pictures of what a method made of its gallery in `folder`; the method itself is not needed."""
    gallery, features = seen.gallery, seen.features
    album = AlbumWriter(folder, seen.step)
    n = len(seen.reconstruction.original)
    album.reconstructions(seen.reconstruction, gallery.names[:n])
    images = unit_float(gallery.batch.images)
    album.pca(images[:n], pca_map(features[:n], seen.grid), gallery.names[:n])
    k = min(MOST_NEIGHBOURS, len(gallery.batch) - 1)
    if k > 0:
        pooled = features.mean(1)
        found = nearest(pooled, None, k, own=torch.arange(n), centre=pooled.mean(0))
        album.neighbours(images, found, gallery.names, gallery.labels)
    album.close()
