"""What a segmenter says of test images, read one by one at their own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from lamina.batch import Fault
from lamina.data import DataOptions
from lamina.data.dense import MapSource
from lamina.data.dense_loader import dense_images
from lamina.downstream.segment.miou import count_image
from lamina.downstream.segment.sliding import SaysOfWindows, slide
from lamina.downstream.segment.windowing import SegmentWindows

SHOWN = 4
"""Test images that the picture shows."""
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Shown:
    """A test image with the classes of its pixels, true and predicted."""

    name: str
    image: Shaped[Tensor, "C H W"]
    truth: UInt8[Tensor, "H W"]
    predicted: UInt8[Tensor, "H W"]


@dataclass(frozen=True)
class Tested:
    """Counts of each image that could be read (`miou.count_image`), some to show, and what could not be
    read."""

    counts: Int64[Tensor, "n 3 K"]
    shown: tuple[Shown, ...]
    faults: tuple[Fault, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside."""
        n = len(self.faults)
        return (f"{n} test images could not be read",) if n else ()


def segment_images(
    says: SaysOfWindows,
    source: MapSource,
    windows: SegmentWindows,
    in_chans: int,
    fill: Sequence[float],
    device: torch.device,
    reading: DataOptions,
    progress: Progress | None = None,
) -> Tested:
    """Predict every pixel of every image by overlapping windows (`sliding.slide`).

    Args:
        says: windows to logits, on `device`. source: images with maps.
        windows, fill: how windows are cut, and what continues an image that is smaller.
        in_chans, reading: how images are read, and by how many processes.
        progress: told how many images of how many are done.

    Raises:
        LaminaError: where no image can be read.
    """
    n = len(source.images)
    wanted = {(2 * i + 1) * n // (2 * SHOWN) for i in range(SHOWN)}  # spread evenly, whatever their order
    counts: list[Tensor] = []
    shown: list[Shown] = []
    faults: list[Fault] = []
    for done, batch in enumerate(dense_images(source, in_chans, reading, reading.workers), 1):
        faults += batch.faults
        if len(batch):
            assert batch.labels is not None
            assert batch.keys is not None
            image, truth = batch.images[0], batch.labels[0]
            predicted = slide(says, image, windows, fill, device).argmax(0)
            counts.append(count_image(predicted, truth.to(device), len(source.classes)).cpu())
            index = int(batch.keys[0])
            if index in wanted:
                name = source.images.name(index)
                shown.append(Shown(name, image, truth, predicted.to("cpu", torch.uint8)))
        if progress is not None:
            progress(done, n, 0.0)
    return Tested(torch.stack(counts), tuple(shown), tuple(faults))
