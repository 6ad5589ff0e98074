"""What travels from the loader to a method: images, the key of each, and what was decided on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.core.text import counted_share


class Fault(NamedTuple):
    """A sample that could not be read: its index in the source, the epoch, a reason in a few words, and its
    name as it is safe to print ("" where it is not known)."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a fault
    reason: str
    name: str = ""


class Remark(NamedTuple):
    """What is worth knowing of a sample that was read: its index, its name (safe to print), which kind of
    thing it is, what exactly, and how many of how many values are concerned (0 of 0: not counted)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a remark
    name: str
    kind: str
    detail: str = ""
    found: int = 0
    of: int = 0

    @property
    def about(self) -> str:
        """What exactly, and how many values; "" where there is nothing to say."""
        return "; ".join(filter(None, (self.detail, counted_share(self.found, self.of, "values"))))


class Objects(NamedTuple):
    """The objects of one image.

    Boxes are x1, y1, x2, y2 in px, corners between pixels: a box around the whole image is 0, 0, W, H. Labels
    count the source's `classes` from 0. `crowd` marks a region of many that is neither learned nor counted
    against a detector (COCO's iscrowd).
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, "n"]
    masks: Bool[Tensor, "n H W"]
    crowd: Bool[Tensor, "n"]

    def take(self, index: Shaped[Tensor, "k"]) -> Objects:
        """Some of them, by index or by a mask."""
        return self.map(lambda tensor: tensor[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Objects:
        """Each tensor changed."""
        return Objects(*(change(tensor) for tensor in self))


@dataclass(frozen=True)
class Batch:
    """A batch of images.

    `images` keep the dtype they were stored in until they are on the compute device (`unit_float`).
    `keys` name the samples for `rng`; None means torch's own generator. `mask` is True where a patch is
    hidden; None lets the method draw it. `labels` are classes of images, or of their pixels; `multi_labels`
    which of the classes each image has, where it may have several. `view` is a second view of each image
    (CMAE). `objects` are those of each image, for detection. `faults` are the
    samples that could not be read and whose slots were filled by others, `remarks` are on samples that could.
    """

    images: Shaped[Tensor, "B C H W"]
    keys: Int64[Tensor, "B"] | None = None
    mask: Bool[Tensor, "B N"] | None = None
    labels: Shaped[Tensor, "B *map"] | None = None
    faults: tuple[Fault, ...] = ()
    view: Shaped[Tensor, "B C H W"] | None = None
    objects: tuple[Objects, ...] | None = None
    remarks: tuple[Remark, ...] = ()
    multi_labels: Bool[Tensor, "B K"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        """The same batch on another device (a copy without a synchronisation from pinned memory)."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory; the DataLoader calls this by its name."""
        return self.each(Tensor.pin_memory)

    def split(self, size: int) -> Iterator[Batch]:
        """Consecutive micro-batches of `size` samples (the last one may be smaller), without the faults and
        remarks."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            objects = None if self.objects is None else self.objects[part]
            rows = self._rows(lambda tensor, part=part: tensor[part])  # type: ignore[misc]
            yield replace(rows, faults=(), remarks=(), objects=objects)

    def each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same batch with every tensor changed, those of objects too."""
        objects = None if self.objects is None else tuple(each.map(change) for each in self.objects)
        return replace(self._rows(change), objects=objects)

    def _rows(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The tensors with a row for each sample changed."""

        def of(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return Batch(
            change(self.images),
            of(self.keys),
            of(self.mask),
            of(self.labels),
            self.faults,
            of(self.view),
            self.objects,
            self.remarks,
            of(self.multi_labels),
        )


def with_keys(batch: Batch, seed: int = 0) -> Batch:
    """The batch with keys by place and seed where it has none, so that what is random is drawn alike each
    time."""
    if batch.keys is not None:
        return batch
    return replace(batch, keys=sample_keys(seed, 0, torch.arange(len(batch), device=batch.images.device)))


def images_of(given: object) -> Shaped[Tensor, "..."]:
    """The images of a batch, or a plain tensor as it is.

    Raises:
        LaminaError: for anything else, such as the pair that a DataLoader gives.
    """
    if isinstance(given, Batch):
        return given.images
    if isinstance(given, Tensor):
        return given
    first = "; of a DataLoader's (images, labels) give the images" if isinstance(given, list | tuple) else ""
    raise LaminaError(
        f"a method takes a tensor of images or a lamina.Batch, not a {type(given).__name__}{first}"
    )


def unit_float(images: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Stored pixels as float in [0, 1]: uint8 and uint16 are divided by their largest value."""
    if images.is_floating_point():
        return images
    if images.dtype not in (torch.uint8, torch.uint16):
        raise LaminaError(f"images are {images.dtype}; give uint8, uint16, or float in [0, 1]")
    return images.float() / torch.iinfo(images.dtype).max
