"""Predictions for images with several labels each: scores of each label, and their average precisions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Bool, Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from lamina.core.batch import Fault, Remark
from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.notes import remark_lines
from lamina.data.loading.bad_files import unread_notes
from lamina.data.options import DataOptions
from lamina.data.sources import Source
from lamina.evaluate.predictions import Logits, answers
from lamina.evaluate.score import MEAN_AP, OF_LABEL, PREVALENCE
from lamina.features.average_precision import (
    average_precisions,
    bootstrap_interval,
    mean_over_labels,
    mean_prevalence,
)
from lamina.features.options import ComputeOptions


@dataclass(frozen=True)
class SeveralPredictions:
    """Scores and labels of the images that could be read, and those that could not."""

    scores: Float[Tensor, "n K"]
    """Higher for likelier labels."""
    labels: Bool[Tensor, "n K"]
    classes: tuple[str, ...]
    faults: tuple[Fault, ...] = ()
    remarks: tuple[Remark, ...] = ()

    @cached_property
    def average_precisions(self) -> Float64[NDArray[Any], "K"]:
        """That of each label; NaN for a label that no image has."""
        return average_precisions(self.labels.numpy(), self.scores.numpy())

    @property
    def mean_average_precision(self) -> float:
        """The mean over the labels that some image has."""
        return mean_over_labels(self.average_precisions)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of that over the choice of test images, by resampling."""
        return bootstrap_interval(self.labels.numpy(), self.scores.numpy())

    @cached_property
    def prevalence(self) -> float:
        """The mAP of scores that say nothing."""
        return mean_prevalence(self.labels.numpy())

    @property
    def more(self) -> dict[str, float]:
        """The mean prevalence, and the average precision of each label that some image has, by name."""
        each = zip(self.classes, self.average_precisions, strict=True)
        known = {f"{OF_LABEL}{printable(name)}": float(value) for name, value in each if value == value}
        return {PREVALENCE: self.prevalence, **known}

    @property
    def score_fields(self) -> dict[str, Any]:
        """The fields of a `Score` that follow from the predictions."""
        return {
            "metric": MEAN_AP,
            "value": self.mean_average_precision,
            "interval": self.interval,
            "n_test": len(self.labels),
            "more": self.more,
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on images that could not be read, on how others were read, and where the scores say no
        more than nothing would."""
        unread = unread_notes(self.faults, len(self.labels) + len(self.faults), "test images")
        nothing = baseline_note(self.mean_average_precision, self.prevalence)
        return (*unread, *remark_lines(self.remarks), *nothing)


def baseline_note(value: float, prevalence: float) -> tuple[str, ...]:
    """A note where a mean average precision is no higher than the mean prevalence."""
    if value > prevalence:
        return ()
    share = f"{100 * prevalence:.1f} %"
    return (f"the mAP is not above the mean prevalence, {share}, which scores that say nothing have",)


def score_several(
    logits: Logits,
    source: Source,
    image_size: tuple[int, int],
    in_chans: int,
    reading: DataOptions | None = None,
    compute: ComputeOptions | None = None,
) -> SeveralPredictions:
    """The logits of all labels of every image, by a centre crop; arguments as of `predictions.classify`.

    Raises:
        LaminaError: where the images have not several labels each, or none can be read.
    """
    if source.multi_labels is None:
        raise LaminaError(
            "this classifier gives each image any number of labels, and these images have not: name several "
            "columns of a table (table.csv?label=a,b)"
        )
    found = answers(logits, source, image_size, in_chans, reading, compute or ComputeOptions())
    return SeveralPredictions(*found._replace(found=found.found.float()))
