"""Training batches with classes of pixels or with objects, and their images one by one for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Shaped
from torch import Tensor

from lamina.core.batch import Batch, Fault, Objects, Remark
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.data.augment.jitter import jitter
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.crops import N_DRAWS, draw_window
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.dense.window_options import WindowOptions
from lamina.data.loading.bad_files import FaultBudget, fault_of
from lamina.data.loading.dataloader import StepLoader, in_order
from lamina.data.loading.dataset import BatchReader, read_noted, read_or_replace
from lamina.data.loading.image_stack import ImageStack
from lamina.data.loading.sampler import Sample, Stream
from lamina.data.options import DataOptions, Decoding


class DenseLoader(StepLoader):
    """Windows of images with their classes (`Batch.labels`) or objects (`Batch.objects`), a function of
    (seed, step): the same for any number of workers and after a resume, as `TrainLoader`'s.

    Args:
        source: images with maps, or with objects.
        options: decoding, jitter, workers and the budget of bad files; a sample whose labels cannot be read
            is a bad file.
        window: how windows are cut.
        seed, batch_size, rank, world: as `TrainLoader`.
        in_chans: channels of the images.
        fill: value of each channel beyond the image, on [0, 1].
        least_px: pixels of an object that a window must show for it to count.
    """

    def __init__(
        self,
        source: MapSource | ObjectSource,
        options: DataOptions,
        window: WindowOptions,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        *,
        in_chans: int = 3,
        fill: Sequence[float] | None = None,
        least_px: int = 1,
    ) -> None:
        self.source = source
        self.budget = FaultBudget(source.images, options)
        reader = DenseReader(source, options, window, seed, in_chans, fill, least_px)
        super().__init__(reader, Stream(len(source.images), seed, batch_size, rank, world), options)


class DenseReader(BatchReader):
    """(epoch, index) pairs to a `Batch` of windows, as a function of them and of the seed alone."""

    def __init__(
        self,
        source: MapSource | ObjectSource,
        options: DataOptions,
        window: WindowOptions,
        seed: int,
        in_chans: int,
        fill: Sequence[float] | None,
        least_px: int,
    ) -> None:
        self.source, self.how, self.window, self.seed = source, options.decoding(in_chans), window, seed
        self.strengths, self.fill, self.least_px = options.jitter, fill, least_px

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        epochs, indices = torch.tensor(samples).unbind(1)
        keys = sample_keys(self.seed, epochs, indices)
        draws = uniform(keys, N_DRAWS, Purpose.CROP).tolist()
        colours = uniform(keys, 5, Purpose.COLOUR).tolist()
        faults: list[Fault] = []
        remarks: list[Remark] = []
        images, maps, objects = ImageStack(len(samples)), [], []
        self.source.images.read_ahead([index for _, index in samples], self.how)
        for k, sample in enumerate(samples):
            read = partial(read_dense, self.source, how=self.how, remarks=remarks)
            (image, label), _ = read_or_replace(read, self.source.images, sample, keys[k : k + 1], faults)
            classes = label if isinstance(label, Tensor) else None
            window = draw_window(image.shape[-2], image.shape[-1], self.window, draws[k], classes)
            image = window.image(image, self.fill)
            images.append(image if self.strengths is None else jitter(image, self.strengths, colours[k]))
            if isinstance(label, Objects):
                objects.append(window.objects(label, self.least_px))
            else:
                maps.append(window.map(label))
        labels = torch.stack(maps) if maps else None
        batch = Batch(images.stacked(), keys, None, labels, tuple(faults), remarks=tuple(remarks))
        return replace(batch, objects=tuple(objects)) if objects else batch


class DenseEvalReader(BatchReader):
    """An index to a `Batch` of one image of its own size, whose key is the index. Where it is unreadable,
    the batch has no image, but a fault."""

    def __init__(self, source: MapSource | ObjectSource, how: Decoding) -> None:
        self.source, self.how = source, how

    def _batch(self, samples: Sequence[int]) -> Batch:
        (index,) = samples
        remarks: list[Remark] = []
        try:
            image, label = read_dense(self.source, index, self.how, remarks)
        except Unreadable as error:
            fault = fault_of(self.source.images, 0, index, error)
            return Batch(torch.empty(0, 0, 0, 0), torch.empty(0, dtype=torch.int64), faults=(fault,))
        batch = Batch(image[None], torch.tensor([index]), remarks=tuple(remarks))
        if isinstance(label, Objects):
            return replace(batch, objects=(label,))
        return replace(batch, labels=label[None])


def dense_images(
    source: MapSource | ObjectSource, in_chans: int, options: DataOptions | None = None, workers: int = 0
) -> Iterator[Batch]:
    """All images one by one, in order and of their own size, with the classes of their pixels or their
    objects.

    Of `options` the decoding and `worker_timeout_seconds` are used. An unreadable one is an empty batch with
    its fault.

    Raises:
        LaminaError: if no image can be read.
    """
    options = options or DataOptions()
    reader = DenseEvalReader(source, options.decoding(in_chans))
    n, bad = len(source.images), 0
    for batch in in_order(reader, [[i] for i in range(n)], workers, options.worker_timeout_seconds):
        bad += len(batch.faults)
        if bad == n:
            raise LaminaError(
                f"none of the {n} images can be read with its labels ({batch.faults[0].reason})"
            )
        yield batch


def read_dense(
    source: MapSource | ObjectSource, index: int, how: Decoding, remarks: list[Remark] | None = None
) -> tuple[Shaped[Tensor, "C H W"], Tensor | Objects]:
    """An image and the classes of its pixels, or its objects; what is worth knowing of it goes into
    `remarks`. Raises `Unreadable`, also where sizes differ."""
    image = read_noted(source.images, index, how, [] if remarks is None else remarks).image
    label: Tensor | Objects
    label = (
        source.read_objects(index, how) if isinstance(source, ObjectSource) else source.read_map(index, how)
    )
    size = label.masks.shape[1:] if isinstance(label, Objects) else label.shape
    if tuple(size) != tuple(image.shape[1:]):
        raise Unreadable(
            Reason.LABELS, f"labels of {tuple(size)} px for an image of {tuple(image.shape[1:])}"
        )
    return image, label
