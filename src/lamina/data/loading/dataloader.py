"""Readers in worker processes: step by step for training, once and in order for evaluation."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.data.loading.sampler import Sample, Stream
from lamina.data.loading.transfer import pack
from lamina.data.loading.worker_pool import WorkerPool
from lamina.data.options import DataOptions

T = TypeVar("T")


class StepLoader:
    """What a reader makes of a stream's samples, step by step, in worker processes."""

    def __init__(self, reader: Dataset[Batch], stream: Stream, options: DataOptions) -> None:
        self.n_samples = stream.n_samples
        self._reader, self._options = reader, options
        self._steps = _Steps(stream)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """This rank's part of the batches of steps first_step, ..., last_step - 1.

        Raises:
            LaminaError: as the reader gives it, where a worker dies, and where no batch comes for
                `data.worker_timeout_seconds`.
        """
        self._steps.first, self._steps.last = first_step, last_step
        yield from _read(self._reader, self._steps, self._options)


def in_order(
    reader: Dataset[T], chunks: Sequence[Sequence[int]], workers: int, limit_seconds: float | None = None
) -> Iterator[T]:
    """What a reader makes of each chunk of indices, in their order.

    Args:
        limit_seconds: the longest wait for a worker; None: the default of `data.worker_timeout_seconds`.

    Raises:
        LaminaError: as the reader gives it, and as `StepLoader.batches`.
    """
    options = DataOptions(workers=workers)
    if limit_seconds is not None:
        options = replace(options, worker_timeout_seconds=limit_seconds)
    yield from _read(reader, chunks, options)


def _read(reader: Dataset[T], samples: Any, options: DataOptions) -> Iterator[T]:
    """The reader's items, one for each of `samples`; an error for the user that it gave is raised."""
    loader: DataLoader[Any] = DataLoader(
        reader,
        batch_sampler=samples,  # sequences and ranges serve as lists of indices
        num_workers=options.workers,
        prefetch_factor=options.prefetch_batches if options.workers else None,
        collate_fn=pack if options.workers else _as_it_is,
        pin_memory=not options.workers and torch.cuda.is_available(),
        worker_init_fn=_follow_the_parent,
        generator=torch.Generator(),  # else each pass would draw from torch's global generator
    )
    items = WorkerPool[T](loader, options.worker_timeout_seconds) if options.workers else loader
    for item in items:
        if isinstance(item, LaminaError):
            raise item
        yield item


class _Steps(Sampler[list[Sample]]):
    """The stream's steps from `first` to `last`; both are set before each pass."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.first, self.last = stream, 0, 0

    def __iter__(self) -> Iterator[list[Sample]]:
        return self.stream.steps(self.first, self.last)

    def __len__(self) -> int:
        return self.last - self.first


def _as_it_is(item: T) -> T:
    return item


def _follow_the_parent(worker: int) -> None:
    """Leave signals to the parent, and end with it.

    Signals to a terminal's group, or to all processes of a job, must not end the workers before a checkpoint
    is written; the parent ends them. (SIGTERM stays as torch has it: it comes with the parent's.) torch ends
    a worker whose parent was killed by looking at the parent's id, which under forkserver (Python's default
    from 3.14 on) is that of the server: and the server waits for its workers.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, name="lamina-parent", daemon=True).start()


def _end_with_the_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
