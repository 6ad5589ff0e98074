"""What a run needs in all: steps, operations, time at a given rate, and processor cores that decode for
it."""

from __future__ import annotations

import math
from dataclasses import dataclass

DECODED_PER_CORE = 300.0
"""Images per second that a processor core decodes and crops: 500 x 375 px JPEG by Pillow
(docs/benchmarks.md). Larger files are slower: a photograph of 4000 x 3000 px is 30 times as slow."""

MFU_PLANNED, MFU_GOAL = 0.2, 0.4
"""Model FLOPs utilisation, the share of the peak rate that is used for counted operations: what to plan with,
and what a good set-up reaches. MAE's own ViT-L, 42 hours on 64 V100, is 0.105 by the same count (its
README)."""

USABLE = 0.92
"""Share of a GPU's memory that a step may fill; the rest is for the driver, the libraries and the
allocator."""


@dataclass(frozen=True)
class Work:
    """The whole of a run on some devices."""

    steps: int
    batch_size: int
    flops_per_image: float

    @property
    def images(self) -> int:
        """Images that are read, repetitions counted."""
        return self.steps * self.batch_size

    def images_per_second(self, peak: float, devices: int, mfu: float) -> float:
        """At that share of the peak rate, in operations per second, of so many devices."""
        return peak * devices * mfu / self.flops_per_image

    def hours(self, peak: float, devices: int, mfu: float) -> float:
        """Hours of the run at that rate."""
        return self.images / self.images_per_second(peak, devices, mfu) / 3600


def decode_cores(images_per_second: float, per_core: float = DECODED_PER_CORE) -> int:
    """Processor cores that keep up with so many images per second."""
    return math.ceil(images_per_second / per_core)
