"""The features of a source: a vector of each image, its label, and how long they took to compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from lamina.core.batch import Fault
from lamina.core.errors import LaminaError
from lamina.data.loading.bad_files import unread_notes

ProbeName = Literal["knn", "linear"]
Setting = bool | int | float | str


class FeatureKey(NamedTuple):
    """Names one kind of vector: "trained", "fused", "mean"."""

    encoder: str
    features: str
    pool: str


@dataclass(frozen=True)
class Timing:
    """The time that computing features took."""

    images: int
    """That were read and passed an encoder; 0 where all vectors came from a cache."""
    seconds: float
    """From the first request for a batch to the last vector in memory."""
    images_per_second: float
    data_wait: float
    """Share of the time spent waiting for images."""

    @classmethod
    def of(cls, images: int, seconds: float, waited: float) -> Timing:
        """From all seconds, and the seconds that were spent waiting for images."""
        span = max(seconds, 1e-9)
        return cls(images, round(seconds, 3), round(images / span, 2), round(waited / span, 4))

    def __add__(self, other: Timing) -> Timing:
        """One after the other."""
        waited = self.seconds * self.data_wait + other.seconds * other.data_wait
        return Timing.of(self.images + other.images, self.seconds + other.seconds, waited)

    def __str__(self) -> str:
        if not self.images:
            return f"features from the cache in {self.seconds:.1f} s"
        return (
            f"features of {self.images} images in {self.seconds:.1f} s: "
            f"{self.images_per_second:.1f} images/s, data wait {self.data_wait:.0%}"
        )


@dataclass(frozen=True)
class FeatureTable:
    """Vectors of the images that could be read, in the source's order, on the CPU.

    `index` are their places in the source; `faults` the images that could not be read; `notes` say what is
    worth knowing of those that were read, and what a cache could not do.
    """

    vectors: dict[FeatureKey, Float[Tensor, "n D"]]
    index: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"] | None
    faults: tuple[Fault, ...]
    timing: Timing | None = None
    notes: tuple[str, ...] = ()
    multi_labels: Bool[Tensor, "n K"] | None = None
    """Which classes each image has, where it may have several."""

    @property
    def known_labels(self) -> Shaped[Tensor, "n *K"]:
        """The labels, or which of K labels each image has; raises `LaminaError` where there are none."""
        if self.multi_labels is not None:
            return self.multi_labels
        if self.labels is None:
            raise LaminaError("an evaluation needs labelled images")
        return self.labels

    def unread(self, what: str = "images") -> tuple[str, ...]:
        """A sentence on what could not be read, if anything."""
        return unread_notes(self.faults, len(self.index) + len(self.faults), what)
