"""What a worker does: read the samples of one step, fill the slots of bad ones, crop, flip, mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from lamina.core.batch import Batch, Fault, Remark
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, bits, sample_keys, uniform
from lamina.data.augment.crops import CenterCrop, Crop
from lamina.data.augment.jitter import Strengths, jitter
from lamina.data.augment.randaugment import TrainAugment
from lamina.data.augment.second_view import ShiftedViews
from lamina.data.decode.decode import Decoded
from lamina.data.decode.notes import remarks_on
from lamina.data.decode.scratch import Scratch, kept
from lamina.data.decode.unreadable import Unreadable
from lamina.data.loading.bad_files import fault_of
from lamina.data.loading.image_stack import ImageStack
from lamina.data.loading.sampler import Sample
from lamina.data.options import Decoding
from lamina.data.sources import Source

T = TypeVar("T")

REPLACEMENTS = 16
"""Draws to fill a bad file's slot; they all fail only where bad files are the rule."""
FEW = 100
"""Number of files up to which most may be unreadable before a run stops (`DataOptions.bad_files_min`)."""


class Masking(Protocol):
    """What the loader needs of a masking."""

    def __call__(self, keys: Int64[Tensor, "B"], grid: tuple[int, int]) -> Bool[Tensor, "B N"]:
        """Which patches to hide, by the samples' keys."""
        ...


class Change(Protocol):
    """What an evaluation makes of each image after the crop: a corruption is one."""

    def __call__(self, image: Shaped[Tensor, "C H W"], index: int) -> Shaped[Tensor, "C H W"]:
        """The image with that index in the source, changed."""
        ...


class BatchReader(Dataset[Batch], ABC):
    """Samples to a `Batch`, in a worker process."""

    def __getitems__(self, samples: Sequence[Any]) -> Batch | LaminaError:
        """One batch; DataLoader calls this by its name. An error for the user is given, not raised."""
        try:
            return self._batch(samples)
        except LaminaError as error:  # raised in a worker, it would become a traceback in text
            return error

    @abstractmethod
    def _batch(self, samples: Sequence[Any]) -> Batch:
        """One batch."""


class TrainReader(BatchReader):
    """(epoch, index) pairs to a `Batch`, as a function of them and of the seed alone.

    Args:
        views_per_read: so many neighbouring samples are crops of one image, which is read once.
        reduce: whether an image is decoded smaller where its crops need no more (`Decoding.reduce`).
    """

    def __init__(
        self,
        source: Source,
        how: Decoding,
        seed: int,
        crop: Crop,
        flip: float,
        masking: Masking | None = None,
        grid: tuple[int, int] | None = None,
        views: ShiftedViews | None = None,
        strengths: Strengths | None = None,
        augment: TrainAugment | None = None,
        *,
        views_per_read: int = 1,
        reduce: bool = False,
    ) -> None:
        if masking is not None and grid is None:
            raise LaminaError("a masking needs the grid of patches")
        self.source, self.seed, self.crop, self.flip = source, seed, crop, flip
        self.how = replace(how, scratch=Scratch())
        self.masking, self.grid = masking, grid
        self.views, self.strengths, self.augment = views, strengths, augment
        self.views_per_read, self.reduce = views_per_read, reduce

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        epochs, indices = torch.tensor(samples).unbind(1)
        keys = sample_keys(self.seed, epochs, indices)
        draws = uniform(keys, self.crop.n_draws, Purpose.CROP).tolist()
        flips = (uniform(keys, 1, Purpose.FLIP)[:, 0] < self.flip).tolist()
        colours = [] if self.strengths is None else uniform(keys, 5, Purpose.COLOUR).tolist()
        shifts = [] if self.views is None else uniform(keys, self.views.n_draws, Purpose.VIEW).tolist()
        images, seconds = ImageStack(len(samples)), ImageStack(len(samples))
        read_from: list[int] = []
        faults: list[Fault] = []
        remarks: list[Remark] = []
        self.source.read_ahead([index for _, index in samples[:: self.views_per_read]], self.how)
        for first in range(0, len(samples), self.views_per_read):
            crops = range(first, first + self.views_per_read)
            how = self._how([draws[k] for k in crops])
            read = partial(read_noted, self.source, how=how, remarks=remarks)
            found, index = read_or_replace(read, self.source, samples[first], keys[first : first + 1], faults)
            for k in crops:
                image = kept(self.crop(found.image, draws[k], found.reduced), found.image)
                image = image.flip(-1) if flips[k] else image
                if self.strengths is not None:
                    image = jitter(image, self.strengths, colours[k])
                if self.views is not None:
                    image, second = self.views(image, shifts[k])
                    seconds.append(second)
                images.append(image if self.augment is None else self.augment(image, keys[k]))
            read_from += [index] * len(crops)
        mask = None
        if self.masking is not None and self.grid is not None:
            mask = self.masking(keys, self.grid)
        view = seconds.stacked() if len(seconds) else None
        batch = Batch(images.stacked(), keys, mask, None, tuple(faults), view, remarks=tuple(remarks))
        return labelled(batch, self.source, read_from)

    def _how(self, draws: Sequence[Sequence[float]]) -> Decoding:
        """How an image is decoded of which these crops are taken."""
        if not self.reduce:
            return self.how
        factors = [partial(self.crop.factor, draws=each) for each in draws]
        return replace(self.how, reduce=lambda h, w: min(factor(h, w) for factor in factors))


class EvalReader(BatchReader):
    """Indices to a `Batch`, perhaps an empty one, whose `keys` are the indices. What cannot be read is left
    out and listed in `faults`. With `reduce`, images are decoded smaller where the crop needs no more."""

    def __init__(
        self,
        source: Source,
        how: Decoding,
        crop: CenterCrop,
        change: Change | None = None,
        *,
        reduce: bool = False,
    ) -> None:
        self.source, self.crop, self.change = source, crop, change
        self.how = replace(how, scratch=Scratch(), reduce=crop.factor if reduce else None)

    def _batch(self, samples: Sequence[int]) -> Batch:
        images, read, faults = ImageStack(len(samples)), [], []
        remarks: list[Remark] = []
        self.source.read_ahead(samples, self.how)
        for index in samples:
            try:
                found = read_noted(self.source, index, self.how, remarks)
            except Unreadable as error:
                faults.append(fault_of(self.source, 0, index, error))
                continue
            image = kept(self.crop(found.image, (), found.reduced), found.image)
            images.append(image if self.change is None else self.change(image, index))
            read.append(index)
        keys = torch.tensor(read, dtype=torch.int64)
        batch = Batch(images.stacked(), keys, None, None, tuple(faults), remarks=tuple(remarks))
        return labelled(batch, self.source, read)


def labelled(batch: Batch, source: Source, indices: Sequence[int]) -> Batch:
    """The batch with the labels of these images, where the source has some."""
    if source.multi_labels is not None:
        return replace(batch, multi_labels=torch.from_numpy(source.multi_labels[list(indices)]))
    if source.labels is None:
        return batch
    return replace(batch, labels=torch.tensor([source.labels[i] for i in indices], dtype=torch.int64))


def read_noted(source: Source, index: int, how: Decoding, remarks: list[Remark]) -> Decoded:
    """An image; what is worth knowing of it goes into `remarks` too. Raises `Unreadable`."""
    found = source.inspect(index, how)
    if found.notes:
        remarks += remarks_on(index, source.name(index), found.notes)
    return found


def read_or_replace(
    read: Callable[[int], T], source: Source, sample: Sample, key: Int64[Tensor, "1"], faults: list[Fault]
) -> tuple[T, int]:
    """What `read` gives for a sample, or for the first draw in its place that can be read; and the index of
    that. What cannot be read is added to `faults`.

    Raises:
        LaminaError: where none of the draws can be read.
    """
    epoch, first = sample
    for index in chain((first,), replacements(key, len(source))):
        try:
            return read(index), index
        except Unreadable as error:
            last, reason = index, str(error)
            faults.append(fault_of(source, epoch, index, error))
    raise LaminaError(
        f"nearly no image can be read, e.g. {source.name(last)!r}: {reason}; see `lamina data check`"
    )


def replacements(key: Int64[Tensor, "1"], n: int) -> Iterator[int]:
    """Indices to take in the place of a bad file, by the sample's key; of few files, all come in turn.

    Nothing is drawn before the first one is asked for.
    """
    yield from (bits(key, REPLACEMENTS, Purpose.REPLACEMENT)[0] % n).tolist()
    yield from range(n if n <= FEW else 0)
