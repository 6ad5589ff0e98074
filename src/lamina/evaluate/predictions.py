"""The classes that a trained classifier predicts for images, which are read as in every evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from lamina.core.batch import Fault, Remark
from lamina.core.errors import LaminaError
from lamina.core.intervals import wilson_interval
from lamina.data.decode.notes import remark_lines
from lamina.data.loading.bad_files import unread_notes
from lamina.data.loading.dataset import Change
from lamina.data.loading.loader import eval_batches
from lamina.data.options import DataOptions
from lamina.data.sources import Source
from lamina.evaluate.confusion import Confusion
from lamina.features.options import ComputeOptions
from lamina.train.distributed import choose_device

Logits = Callable[[Shaped[Tensor, "B C H W"]], Float[Tensor, "B classes"]]


@dataclass(frozen=True)
class Predictions:
    """Predicted and true classes of the images that could be read, and those that could not."""

    predicted: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]
    classes: tuple[str, ...]
    """Names of the classes that both count."""
    faults: tuple[Fault, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @cached_property
    def confusion(self) -> Confusion:
        """How many images of each class were given each class."""
        return Confusion.of(self.labels, self.predicted, self.classes)

    @cached_property
    def right(self) -> int:
        """The number of images whose predicted class is the true one."""
        return int((self.predicted == self.labels).sum())

    @property
    def top1(self) -> float:
        """`right` as a share of all images."""
        return self.right / len(self.labels)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `top1`."""
        return wilson_interval(self.right, len(self.labels))

    @property
    def score_fields(self) -> dict[str, Any]:
        """The fields of a `Score` that follow from the predictions."""
        return {
            "metric": "top1",
            "value": self.top1,
            "interval": self.interval,
            "n_test": len(self.labels),
            "more": self.confusion.numbers,
            "confusion": self.confusion,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on images that could not be read, on how others were read, and where top-1 is no higher
        than that of one class given to all images."""
        unread = unread_notes(self.faults, len(self.labels) + len(self.faults), "test images")
        return (*unread, *remark_lines(self.remarks), *self.confusion.majority_note())


def classify(
    logits: Logits,
    source: Source,
    image_size: tuple[int, int],
    in_chans: int,
    reading: DataOptions | None = None,
    compute: ComputeOptions | None = None,
    subset: Sequence[int] | None = None,
    change: Change | None = None,
) -> Predictions:
    """The most probable class of every image, by a centre crop.

    Args:
        logits: a classifier in evaluation mode, on the device of `compute`.
        source: labelled images.
        image_size, in_chans, reading: how they are cropped and read, see `eval_batches`.
        compute: batch size, workers, device.
        subset: for each class of the source its place among the classifier's classes, where these are more
            or in another order; the classifier's other classes are never predicted (ImageNet-A, -R).
        change: what is done to each image after the crop, such as a corruption.

    Raises:
        LaminaError: where the images have no labels, or none can be read.
    """
    if source.labels is None:
        why = f" ({source.no_labels})" if source.no_labels else ""
        raise LaminaError(
            f"these images have no classes{why}; give root/CLASS/..., or root/{{train,val}}/CLASS/..."
        )
    compute = compute or ComputeOptions()
    columns = None if subset is None else torch.tensor(list(subset), device=choose_device(compute.device))

    def classes_of(images: Shaped[Tensor, "B C H W"]) -> Int64[Tensor, "B"]:
        found = logits(images)
        return (found if columns is None else found[:, columns]).argmax(1)

    return Predictions(*answers(classes_of, source, image_size, in_chans, reading, compute, change))


class Answers(NamedTuple):
    """What is said of each image that could be read, in the order of the fields of `Predictions`."""

    found: Shaped[Tensor, "n *K"]
    labels: Shaped[Tensor, "n *K"]
    classes: tuple[str, ...]
    faults: tuple[Fault, ...]
    remarks: tuple[Remark, ...]


@torch.inference_mode()
def answers(
    answer: Callable[[Shaped[Tensor, "B C H W"]], Shaped[Tensor, "B *K"]],
    source: Source,
    image_size: tuple[int, int],
    in_chans: int,
    reading: DataOptions | None,
    compute: ComputeOptions,
    change: Change | None = None,
) -> Answers:
    """`answer` to every image of a labelled source, by batches on the device of `compute`; arguments as of
    `classify`."""
    device = choose_device(compute.device)
    found, labels = list[Tensor](), list[Tensor]()
    faults: list[Fault] = []
    remarks: list[Remark] = []
    size, workers = compute.batch_size, compute.workers
    for batch in eval_batches(source, image_size, in_chans, size, workers, reading, change):
        known = batch.labels if batch.multi_labels is None else batch.multi_labels
        assert known is not None
        found.append(answer(batch.images.to(device, non_blocking=True)))
        labels.append(known)
        faults += batch.faults
        remarks += batch.remarks
    classes = tuple(source.class_names)
    return Answers(torch.cat(found).cpu(), torch.cat(labels), classes, tuple(faults), tuple(remarks))
