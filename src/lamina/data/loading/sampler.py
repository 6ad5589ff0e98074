"""The endless stream of samples, and the part of it that one rank reads.

Position p of the stream is sample `permutation(seed, epoch, n)[p % n]` of epoch p // n. Global batch k is
the positions [k * B, (k + 1) * B), of which rank r takes the r-th of `world` equal, contiguous parts. So
no sample is dropped or repeated within an epoch, a batch may span two epochs, and what a step reads is a
function of (seed, step) alone: going on at a step needs nothing but its number.

With v views per read a position stands for v neighbouring samples of a batch, which are crops of one image,
and a batch has B / v positions. In pass e over the images, each image has the crops that it would otherwise
have in epochs e * v to e * v + v - 1 (Hoffer et al., "Augment your batch", arXiv 1901.09335).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import permutation

Sample = tuple[int, int]
"""(epoch, index in the source)."""


@dataclass(frozen=True)
class Stream:
    """What each rank reads at each step."""

    n_samples: int
    seed: int
    batch_size: int
    rank: int = 0
    world: int = 1
    views: int = 1
    """Crops of each image that is read (`data.views_per_read`)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be divided."""
        if self.n_samples < 1:
            raise LaminaError("there are no images to train on")
        check_batch_size(self.batch_size, self.world, self.views)

    def steps(self, first: int, last: int) -> Iterator[list[Sample]]:
        """This rank's samples of the steps first, ..., last - 1."""
        share = self.batch_size // self.world // self.views
        epoch, order = -1, None
        for step in range(first, last):
            start = (step * self.world + self.rank) * share
            samples: list[Sample] = []
            while len(samples) < share:
                position = start + len(samples)
                if epoch != position // self.n_samples or order is None:
                    epoch = position // self.n_samples
                    order = permutation(self.seed, epoch, self.n_samples)
                samples += _run(order, epoch, position % self.n_samples, share - len(samples))
            yield [(e * self.views + view, index) for e, index in samples for view in range(self.views)]


def check_batch_size(batch_size: int, world: int = 1, views: int = 1) -> None:
    """Raise where a batch cannot be divided among the processes, or the part of one into the crops of whole
    images."""
    if batch_size < 1 or batch_size % world:
        raise LaminaError(f"the batch size {batch_size} must be a multiple of the {world} processes")
    if batch_size // world % views:
        part = "" if world == 1 else f" (each of {world} processes takes {batch_size // world})"
        raise LaminaError(
            f"the batch size {batch_size}{part} must be a multiple of data.views_per_read, which is {views}: "
            "all crops of an image are in one batch of one process"
        )


def _run(order: Int64[Tensor, "n"], epoch: int, first: int, count: int) -> list[Sample]:
    """At most `count` samples of one epoch from place `first` of its order on."""
    return [(epoch, index) for index in order[first : first + count].tolist()]
