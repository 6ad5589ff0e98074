"""Readers in worker processes: step by step for training, once and in order for evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lamina.batch import Batch
from lamina.data.options import DataOptions
from lamina.data.sampler import Sample, Stream
from lamina.errors import LaminaError

T = TypeVar("T")


class StepLoader:
    """What a reader makes of a stream's samples, step by step, in worker processes."""

    def __init__(self, reader: Dataset[Batch], stream: Stream, options: DataOptions) -> None:
        self._steps = _Steps(stream)
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
        """The batches of steps first_step, ..., last_step - 1.

        Raises:
            LaminaError: as the reader gives it, and where a worker dies.
        """
        self._steps.first, self._steps.last = first_step, last_step
        yield from _raised(_named_deaths(self._loader))


def in_order(reader: Dataset[Batch], chunks: Sequence[Sequence[int]], workers: int) -> Iterator[Batch]:
    """What a reader makes of each chunk of indices, in their order.

    Raises:
        LaminaError: as the reader gives it, and where a worker dies.
    """
    loader = DataLoader(
        reader,
        batch_sampler=chunks,  # type: ignore[arg-type]  # ranges serve as lists of indices
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_process_group,
        generator=torch.Generator(),
    )
    yield from _raised(_named_deaths(loader))


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


def _raised(batches: Iterator[Batch | LaminaError]) -> Iterator[Batch]:
    for batch in batches:
        if isinstance(batch, LaminaError):
            raise batch
        yield batch
