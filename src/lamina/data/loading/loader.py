"""Batches for training and for evaluation, through torch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lamina.core.batch import Batch, Fault
from lamina.core.errors import LaminaError
from lamina.data.augment.crops import CenterCrop, make_crop
from lamina.data.augment.randaugment import TrainAugment
from lamina.data.augment.second_view import ShiftedViews
from lamina.data.loading.bad_files import FaultBudget
from lamina.data.loading.dataloader import StepLoader, in_order
from lamina.data.loading.dataset import Change, EvalReader, Masking, TrainReader
from lamina.data.loading.sampler import Stream
from lamina.data.options import DataOptions
from lamina.data.sources import Source


class TrainLoader(StepLoader):
    """Training batches, a function of (seed, step): the same for any number of workers and after a resume.

    `batch_size` is the global one; this loader gives rank `rank`'s part of each batch. Files that could not
    be read are reported in `batch.faults` and counted by who gathers them from all ranks: `budget` is for
    that. With `masking`, patches of `grid` are hidden here, on the CPU.
    """

    def __init__(
        self,
        source: Source,
        options: DataOptions,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        *,
        image_size: tuple[int, int],
        in_chans: int = 3,
        masking: Masking | None = None,
        grid: tuple[int, int] | None = None,
        statistics: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        self.source = source
        self.budget = FaultBudget(source, options)
        reader = TrainReader(
            source,
            options.decoding(in_chans),
            seed,
            make_crop(options, image_size),
            options.flip,
            masking,
            grid,
            _views(options, image_size),
            options.jitter,
            _augment(options, statistics),
            views_per_read=options.views_per_read,
            reduce=options.reduces,
        )
        stream = Stream(len(source), seed, batch_size, rank, world, options.views_per_read)
        super().__init__(reader, stream, options)


def _views(options: DataOptions, image_size: tuple[int, int]) -> ShiftedViews | None:
    if options.second_view == "none":
        return None
    return ShiftedViews(
        image_size,
        options.view_shift_px,
        options.view_jitter,
        options.view_jitter_share,
        options.view_grey_share,
        options.view_blur_share,
    )


def _augment(
    options: DataOptions, statistics: tuple[Sequence[float], Sequence[float]] | None
) -> TrainAugment | None:
    if options.auto_augment is None and options.erase == 0:
        return None
    return TrainAugment(options.auto_augment, options.erase, *(statistics or (None, None)))


def eval_batches(
    source: Source,
    image_size: tuple[int, int],
    in_chans: int,
    batch_size: int,
    workers: int = 0,
    options: DataOptions | None = None,
    change: Change | None = None,
) -> Iterator[Batch]:
    """All images in order, by a centre crop, with their labels; `keys` are their indices in the source.

    Images that cannot be read are left out and listed in `faults`. Of `options` the decoding,
    `jpeg_decoding`, `eval_crop_share` and `worker_timeout_seconds` are used. `change` is applied to each
    image after the crop, where it is read.

    Raises:
        LaminaError: if no image can be read, or from `change`.
    """
    options = options or DataOptions()
    crop = CenterCrop(image_size, options.eval_crop_share)
    reader = EvalReader(source, options.decoding(in_chans), crop, change, reduce=options.reduces)
    chunks = [range(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    yield from _without_empty(in_order(reader, chunks, workers, options.worker_timeout_seconds), source)


def _without_empty(batches: Iterator[Batch], source: Source) -> Iterator[Batch]:
    """Hand the faults of batches without any image to a neighbour that has some."""
    held: Batch | None = None
    faults: tuple[Fault, ...] = ()
    for batch in batches:
        if len(batch) == 0:
            faults += batch.faults
            continue
        if held is not None:
            yield held
        held, faults = replace(batch, faults=faults + batch.faults), ()
    if held is None:
        example = f", e.g. {source.name(0)!r}: {faults[0].reason}" if faults else ""
        raise LaminaError(f"none of the {len(source)} images can be read{example}; see `lamina data check`")
    yield replace(held, faults=held.faults + faults)
