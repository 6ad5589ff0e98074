"""Mean intersection over union of a whole data set, from counts of pixels image by image."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Float64, Int64, Integer, Real
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, bits, sample_keys
from lamina.data.dense.sources import IGNORE

DRAWS = 1000
"""Bootstrap samples of an interval."""
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class SegmentationMetrics:
    """The metrics of a segmentation.

    A class without a pixel in the truth and in the predictions of all images is left out of the mean, its
    IoU is NaN; one that is predicted and nowhere true has IoU 0.
    """

    miou: float
    """Mean over classes of the data set's intersection over the data set's union."""
    interval: tuple[float, float]
    """95 % interval of `miou` over the choice of test images (bootstrap)."""
    iou: tuple[float, ...]
    """Intersection over union of each class."""
    pixel_accuracy: float
    """The share of pixels with a class that are right."""
    miou_per_image: float
    """Mean over images of the mean over the classes in each: another number, torchmetrics' `MeanIoU`."""


def check_metric() -> None:
    """Raise where torchmetrics is not installed."""
    if find_spec("torchmetrics") is None:
        raise LaminaError("mIoU needs torchmetrics; pip install 'lamina[dense]'")


def count_image(
    predicted: Integer[Tensor, "H W"], truth: Integer[Tensor, "H W"], n_classes: int
) -> Int64[Tensor, "3 K"]:
    """Pixels of each class of one image that are both predicted and true, that are predicted, and that are
    true; where the truth is `IGNORE`, nothing is counted."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    matrix = multiclass_confusion_matrix(
        predicted.flatten().long(),
        truth.flatten().long(),
        num_classes=n_classes,
        ignore_index=IGNORE,
        validate_args=False,
    )
    return torch.stack((matrix.diagonal(), matrix.sum(0), matrix.sum(1)))


def segmentation_metrics(counts: Int64[Tensor, "n 3 K"], seed: int = 0) -> SegmentationMetrics:
    """All numbers from the counts of each image.

    Raises:
        LaminaError: where no pixel has a class.
    """
    total = counts.sum(0)
    if not int(total[2].sum()):
        raise LaminaError("no pixel of the test images has a class, so there is nothing to measure")
    each = intersection_over_union(counts)
    shown = each.isnan().logical_not().any(1)
    return SegmentationMetrics(
        miou=float(mean_iou(total)),
        interval=bootstrap_interval(counts, seed),
        iou=tuple(intersection_over_union(total).tolist()),
        pixel_accuracy=float(total[0].sum() / total[2].sum()),
        miou_per_image=float(each[shown].nanmean(1).mean()),
    )


def intersection_over_union(counts: Real[Tensor, "*n 3 K"]) -> Float64[Tensor, "*n K"]:
    """IoU of each class; NaN for a class that is neither predicted nor true."""
    both, predicted, true = counts.double().unbind(-2)
    return both / (predicted + true - both)


def mean_iou(counts: Real[Tensor, "*n 3 K"]) -> Float64[Tensor, "*n"]:
    """Over the classes that are predicted or true."""
    return intersection_over_union(counts).nanmean(-1)


def bootstrap_interval(
    counts: Int64[Tensor, "n 3 K"], seed: int = 0, draws: int = DRAWS
) -> tuple[float, float]:
    """The middle 95 % of the mIoU of as many images drawn with replacement, `draws` times (Efron 1979); a
    function of the counts and the seed."""
    counts = counts.cpu()
    n, flat, found = len(counts), counts.flatten(1).double(), []
    for part in torch.split(torch.arange(draws), max(1, _AT_ONCE // n)):
        rows = bits(sample_keys(seed, 0, part), n, Purpose.BOOTSTRAP) % n
        weights = torch.zeros(len(part), n, dtype=torch.float64)
        weights.scatter_add_(1, rows, torch.ones_like(weights))
        found.append(mean_iou((weights @ flat).view(len(part), *counts.shape[1:])))
    low, high = np.nanpercentile(torch.cat(found).numpy(), [2.5, 97.5])
    return float(low), float(high)
