"""Features of a whole source, computed once: every image is read once and passes each encoder once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.core.batch import Batch, Fault, Remark
from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.data.decode.notes import remark_lines
from lamina.data.loading.loader import eval_batches
from lamina.data.options import DataOptions
from lamina.data.sources import Source
from lamina.features.cache import FeatureCache
from lamina.features.options import ComputeOptions, FeatureOptions
from lamina.features.pooling import BackboneVectors, Extractor
from lamina.features.table import FeatureKey, FeatureTable, Timing
from lamina.interop.backbone import Backbone, Pool
from lamina.train.distributed import choose_device

_SLAB_CELLS = 1 << 22
_NAMES = {"trained": "the trained encoder", "untrained": "the untrained encoder", "pixels": "raw pixels"}


@torch.inference_mode()
def collect(
    source: Source,
    extractors: Mapping[str, Extractor],
    image_size: tuple[int, int],
    in_chans: int,
    reading: DataOptions | None = None,
    compute: ComputeOptions | None = None,
) -> FeatureTable:
    """Vectors of all images of `source` by every extractor, in float32 and in order.

    Images are read and cropped as `eval_batches` does with `reading`. With a cache only the vectors that are
    not in it are computed.

    Raises:
        LaminaError: where no image can be read, images do not fit an encoder, or nothing can be cached.
    """
    compute, reading = compute or ComputeOptions(), reading or DataOptions()
    started = time.perf_counter()
    if compute.cache is None:
        return _computed(source, extractors, image_size, in_chans, reading, compute)
    cache = FeatureCache.of(Path(compute.cache), source, image_size, in_chans, reading)
    if cache is None:
        table = _computed(source, extractors, image_size, in_chans, reading, compute)
        return replace(table, notes=(*table.notes, "vectors are not cached: these images have no identity"))
    known = {name: cache.read(name, extractor) for name, extractor in extractors.items()}
    if not _agree(known.values()):
        known = dict.fromkeys(known)
    found = {name: table for name, table in known.items() if table is not None}
    missing = {name: extractor for name, extractor in extractors.items() if name not in found}
    if not missing:
        return replace(_joined(found), timing=Timing.of(0, time.perf_counter() - started, 0.0))
    fresh = _computed(source, missing, image_size, in_chans, reading, compute)
    if not _agree([*found.values(), fresh]):  # files became readable, or unreadable, since
        missing, found = dict(extractors), {}
        fresh = _computed(source, missing, image_size, in_chans, reading, compute)
    failures = [cache.write(name, extractor, fresh) for name, extractor in missing.items()]
    whole = _joined({name: found.get(name, fresh) for name in extractors})
    notes = (*fresh.notes, *(note for note in failures if note is not None))
    return replace(whole, timing=fresh.timing, notes=notes)


def collect_for(
    backbone: Backbone,
    source: Source,
    extractors: Mapping[str, Extractor],
    compute: ComputeOptions | None = None,
) -> FeatureTable:
    """`collect` with images of the backbone's size and channels, read as for its training."""
    reading = None if backbone.origin is None else backbone.origin.recipe.data
    return collect(source, extractors, backbone.image_size, backbone.encoder.in_chans, reading, compute)


def pooled_features(
    backbone: Backbone, source: Source, pool: Pool, compute: ComputeOptions
) -> tuple[Float[Tensor, "n D"], FeatureTable]:
    """The features of the last block in one pool, and the table that they stand in, with labels and notes."""
    extractor = BackboneVectors(backbone, FeatureOptions(features=("last",), pools=(pool,)))
    table = collect_for(backbone, source, {"trained": extractor}, compute)
    (features,) = table.vectors.values()
    return features, table


def _agree(tables: Iterable[FeatureTable | None]) -> bool:
    """Whether they are of the same images."""
    places = [table.index for table in tables if table is not None]
    return all(torch.equal(places[0], other) for other in places[1:])


def _joined(tables: Mapping[str, FeatureTable]) -> FeatureTable:
    """The vectors of each encoder from its own table."""
    first = next(iter(tables.values()))
    vectors = {
        key: matrix
        for name, table in tables.items()
        for key, matrix in table.vectors.items()
        if key[0] == name
    }
    return replace(first, vectors=vectors)


def _computed(
    source: Source,
    extractors: Mapping[str, Extractor],
    image_size: tuple[int, int],
    in_chans: int,
    reading: DataOptions,
    compute: ComputeOptions,
) -> FeatureTable:
    device, clock = choose_device(compute.device), _Clock()
    found: dict[FeatureKey, _Rows] = {}
    index: list[Tensor] = []
    labels: list[Tensor] = []
    several: list[Tensor] = []
    faults: list[Fault] = []
    remarks: list[Remark] = []
    batches = eval_batches(source, image_size, in_chans, compute.batch_size, compute.workers, reading)
    with noted_on_interrupt(lambda: f"{clock.images} of {len(source)} images had passed the encoder"):
        for batch in clock.batches(batches):
            assert batch.keys is not None
            faults += batch.faults
            remarks += batch.remarks
            index.append(batch.keys)
            labels += [] if batch.labels is None else [batch.labels]
            several += [] if batch.multi_labels is None else [batch.multi_labels]
            images = batch.images.to(device, non_blocking=True)
            for encoder, extract in extractors.items():
                for (kind, pool), vectors in extract(images).items():
                    found.setdefault(FeatureKey(encoder, kind, pool), _Rows(len(source))).add(vectors)
            clock.images += len(batch)
            if compute.progress is not None:
                compute.progress(clock.images + len(faults), len(source), clock.wait)
    matrices = {key: rows.matrix() for key, rows in found.items()}
    timing = clock.timing()
    for key, matrix in matrices.items():
        if not torch.stack(torch.aminmax(matrix)).isfinite().all():
            raise LaminaError(
                f"features {key.features} of {_NAMES.get(key.encoder, 'the encoder')} are not finite; take "
                "weights of an earlier step, or another model"
            )
    known = torch.cat(labels) if labels else None
    known_several = torch.cat(several) if several else None
    notes = remark_lines(remarks)
    return FeatureTable(matrices, torch.cat(index), known, tuple(faults), timing, notes, known_several)


class _Rows:
    """Vectors batch by batch, copied to the CPU a slab at a time: a GPU is not waited for at each batch."""

    def __init__(self, most: int) -> None:
        self._most, self._done, self._held = most, 0, 0
        self._parts: list[Tensor] = []
        self._whole: Tensor | None = None

    def add(self, vectors: Float[Tensor, "B K"]) -> None:
        self._parts.append(vectors.float())
        self._held += vectors.numel()
        if self._held >= _SLAB_CELLS:
            self._flush()

    def matrix(self) -> Float[Tensor, "n K"]:
        self._flush()
        assert self._whole is not None
        return self._whole[: self._done]

    def _flush(self) -> None:
        if not self._parts:
            return
        slab = torch.cat(self._parts)
        if self._whole is None:  # at its full size from the start, or it would be there twice at the end
            self._whole = torch.empty(self._most, slab.shape[1])
        self._whole[self._done : self._done + len(slab)] = slab
        self._done, self._held, self._parts = self._done + len(slab), 0, []


class _Clock:
    """The time since it was made, and the part of it spent waiting for batches."""

    def __init__(self) -> None:
        self._start, self._waited, self.images = time.perf_counter(), 0.0, 0

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        while True:
            waiting_since = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - waiting_since
            if batch is None:
                return
            yield batch

    @property
    def wait(self) -> float:
        return self._waited / max(time.perf_counter() - self._start, 1e-9)

    def timing(self) -> Timing:
        return Timing.of(self.images, time.perf_counter() - self._start, self._waited)
