"""Batches for training and for evaluation, through torch's DataLoader."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Sampler

from lamina.batch import Batch, Fault
from lamina.data.augment import TrainAugment
from lamina.data.faults import FaultBudget
from lamina.data.options import DataOptions
from lamina.data.reading import EvalReader, Masking, TrainReader
from lamina.data.sampler import Sample, Stream
from lamina.data.sources import Source
from lamina.data.transforms import CenterCrop, make_crop
from lamina.data.views import ShiftedViews
from lamina.errors import LaminaError

T = TypeVar("T")


class TrainLoader:
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
        self.n_samples = len(source)
        self.stream = Stream(len(source), seed, batch_size, rank, world)
        self.budget = FaultBudget(source, options)
        self._steps = _Steps(self.stream)
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
        )
        self._loader = DataLoader(
            reader,
            batch_sampler=self._steps,
            num_workers=options.workers,
            prefetch_factor=options.prefetch_batches if options.workers else None,
            persistent_workers=options.workers > 0,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_process_group,
            generator=torch.Generator(),  # else each pass would draw from torch's global generator
        )

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """This rank's part of the batches of steps first_step, ..., last_step - 1.

        Raises:
            LaminaError: when no file in place of one that cannot be read can be read either.
        """
        self._steps.first, self._steps.last = first_step, last_step
        for batch in _named_deaths(self._loader):
            if isinstance(batch, LaminaError):
                raise batch
            yield batch


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


class _Steps(Sampler[list[Sample]]):
    """The stream's steps from `first` to `last`; both are set before each pass."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.first, self.last = stream, 0, 0

    def __iter__(self) -> Iterator[list[Sample]]:
        return self.stream.steps(self.first, self.last)

    def __len__(self) -> int:
        return self.last - self.first


def _as_it_is(batch: T) -> T:
    return batch


def _leave_process_group(worker: int) -> None:
    """Ctrl-C and signals to the whole group must not end the workers before a checkpoint is written."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def eval_batches(
    source: Source,
    image_size: tuple[int, int],
    in_chans: int,
    batch_size: int,
    workers: int = 0,
    options: DataOptions | None = None,
) -> Iterator[Batch]:
    """All images in order, by a centre crop, with their labels; `keys` are their indices in the source.

    Images that cannot be read are left out and listed in `faults`. Of `options` the decoding and
    `eval_crop_share` are used.

    Raises:
        LaminaError: if no image can be read.
    """
    options = options or DataOptions()
    reader = EvalReader(source, options.decoding(in_chans), CenterCrop(image_size, options.eval_crop_share))
    chunks = [range(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    loader = DataLoader(
        reader,
        batch_sampler=chunks,  # type: ignore[arg-type]  # ranges serve as lists of indices
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_process_group,
        generator=torch.Generator(),
    )
    yield from _without_empty(_named_deaths(loader), source)


def _named_deaths(loader: DataLoader[T]) -> Iterator[T]:
    """The loader's batches; a worker that was killed becomes one line instead of a traceback."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LaminaError(
            f"a data worker died ({str(error).splitlines()[0]}): out of memory or shared memory? "
            "take fewer workers (data.workers; 0 uses none)"
        ) from error


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
