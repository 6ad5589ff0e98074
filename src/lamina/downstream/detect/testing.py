"""Detection in test images, one by one at their own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from lamina.batch import Batch, Fault, Objects
from lamina.data import DataOptions
from lamina.data.dense import ObjectSource
from lamina.data.dense_loader import dense_images
from lamina.downstream.detect.coco import CocoLedger
from lamina.downstream.detect.detector import Detections, Detector
from lamina.downstream.detect.windowing import DetectWindows

SHOWN = 4
"""Test images that the picture shows."""
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Shown:
    """A test image with its objects and what was found, both in its px."""

    name: str
    image: Shaped[Tensor, "C H W"]
    truth: Objects
    found: Detections


@dataclass(frozen=True)
class Tested:
    """Truth and detections of each image that could be read, some to show, and what could not be read."""

    ledger: CocoLedger
    shown: tuple[Shown, ...]
    faults: tuple[Fault, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said beside."""
        n = len(self.faults)
        return (f"{n} test images could not be read",) if n else ()


def detect_images(
    detector: Detector,
    source: ObjectSource,
    windows: DetectWindows,
    in_chans: int,
    fill: Sequence[float],
    device: torch.device,
    reading: DataOptions,
    progress: Progress | None = None,
) -> Tested:
    """Find the objects of every image, resized so that a window shows all of it.

    Args:
        detector: in evaluation mode, on `device`. source: images with objects.
        windows, fill: how windows are cut, and what continues an image that is smaller.
        in_chans, reading: how images are read, and by how many processes.
        progress: told how many images of how many are done.

    Raises:
        LaminaError: where no image can be read, or faster-coco-eval is not installed.
    """
    n = len(source.images)
    ledger = CocoLedger(tuple(source.classes), detector.roi_heads.has_mask())
    faults: list[Fault] = []
    shown: list[Shown] = []
    waiting: list[Batch] = []
    wanted = _spread(n)
    for done, batch in enumerate(dense_images(source, in_chans, reading, reading.workers), 1):
        faults += batch.faults
        waiting += [batch] if len(batch) else []
        if len(waiting) == windows.at_once or done == n:
            for one, found in zip(waiting, _found(detector, waiting, windows, fill, device), strict=True):
                image, truth, index = _parts(one)
                ledger.add(truth, found, (image.shape[-2], image.shape[-1]))
                if index in wanted:
                    shown.append(Shown(source.images.name(index), image, truth, found))
            waiting = []
        if progress is not None:
            progress(done, n, 0.0)
    return Tested(ledger, tuple(shown), tuple(faults))


def _spread(n: int) -> set[int]:
    """Images to show, spread evenly, whatever their order."""
    return {(2 * i + 1) * n // (2 * SHOWN) for i in range(SHOWN)}


def _parts(batch: Batch) -> tuple[Shaped[Tensor, "C H W"], Objects, int]:
    assert batch.objects is not None
    assert batch.keys is not None
    return batch.images[0], batch.objects[0], int(batch.keys[0])


def _found(
    detector: Detector,
    batches: Sequence[Batch],
    windows: DetectWindows,
    fill: Sequence[float],
    device: torch.device,
) -> list[Detections]:
    """Detections of some images in their own px, on the CPU."""
    if not batches:
        return []
    cut = [windows.whole(each.images.shape[-2], each.images.shape[-1]) for each in batches]
    pairs = zip(cut, batches, strict=True)
    images = torch.stack([window.image(each.images[0], fill) for window, each in pairs])
    everything = detector.detect(images.to(device), [window.resized for window in cut])
    found = []
    for said, window, batch in zip(everything, cut, batches, strict=True):
        height, width = batch.images.shape[-2:]
        scale = torch.tensor([width / window.resized[1], height / window.resized[0]] * 2)
        masks = None if said.masks is None else said.masks.cpu()
        found.append(Detections(said.boxes.cpu() * scale, said.labels.cpu(), said.scores.cpu(), masks))
    return found
