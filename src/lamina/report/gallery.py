"""The pictures of a run at one step: reconstructions, maps of patch features, nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lamina.batch import Batch, unit_float
from lamina.errors import LaminaError
from lamina.mim import MIM
from lamina.report.album import AlbumWriter
from lamina.report.pictures import nearest, patch_features, pca_map, reconstruct

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


def paint(method: MIM, gallery: Gallery, folder: Path, step: int) -> None:
    """Make all pictures of a method at this step and keep them in `folder`."""
    album = AlbumWriter(folder, step)
    n = min(gallery.n_shown, len(gallery.batch))
    shown = next(gallery.batch.split(n))
    album.reconstructions(reconstruct(method, shown), gallery.names[:n])
    features = patch_features(method, gallery.batch)
    images = unit_float(gallery.batch.images)
    grid = method.encoder.grid_of(images)
    album.pca(images[:n], pca_map(features[:n], grid), gallery.names[:n])
    k = min(MOST_NEIGHBOURS, len(gallery.batch) - 1)
    if k > 0:
        queries = torch.arange(n)
        pooled = features.mean(1)
        found = nearest(pooled - pooled.mean(0), queries, k)
        album.neighbours(images, queries, found, gallery.names, gallery.labels)
    album.close()
