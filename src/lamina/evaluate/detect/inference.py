"""Detection in test images, one by one at their own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from lamina.core.batch import Batch, Objects
from lamina.evaluate.dense.images import DenseImages
from lamina.evaluate.detect.coco_metrics import CocoEvaluation
from lamina.evaluate.detect.detector import Detections, Detector
from lamina.evaluate.detect.windows import DetectWindows


@dataclass(frozen=True)
class ShownImage:
    """A test image with its objects and what was found, both in its px."""

    name: str
    image: Shaped[Tensor, "C H W"]
    truth: Objects
    found: Detections


@dataclass(frozen=True)
class DetectionResult:
    """Truth and detections of each image that could be read, and some to show."""

    coco: CocoEvaluation
    shown: tuple[ShownImage, ...]


def detect_images(
    detector: Detector,
    images: DenseImages,
    windows: DetectWindows,
    fill: Sequence[float],
    device: torch.device,
) -> DetectionResult:
    """Find the objects of every image, resized so that a window shows all of it.

    Args:
        detector: in evaluation mode, on `device`. images: with objects.
        windows, fill: how windows are cut, and what continues an image that is smaller.

    Raises:
        LaminaError: where no image can be read, or faster-coco-eval is not installed.
    """
    coco = CocoEvaluation(tuple(images.source.classes), detector.roi_heads.has_mask())
    shown: list[ShownImage] = []
    for group in images.groups(windows.batch_size):
        for batch, found in zip(group, _found(detector, group, windows, fill, device), strict=True):
            assert batch.objects is not None
            image, truth = batch.images[0], batch.objects[0]
            coco.add(truth, found, (image.shape[-2], image.shape[-1]))
            if (name := images.shown(batch)) is not None:
                shown.append(ShownImage(name, image, truth, found))
    return DetectionResult(coco, tuple(shown))


def _found(
    detector: Detector,
    batches: Sequence[Batch],
    windows: DetectWindows,
    fill: Sequence[float],
    device: torch.device,
) -> list[Detections]:
    """Detections of some images in their own px, on the CPU."""
    cut = [windows.whole(each.images.shape[-2], each.images.shape[-1]) for each in batches]
    pairs = zip(cut, batches, strict=True)
    images = torch.stack([window.image(each.images[0], fill) for window, each in pairs])
    everything = detector.detect(images.to(device), [window.resized for window in cut])
    found = []
    for each, window, batch in zip(everything, cut, batches, strict=True):
        height, width = batch.images.shape[-2:]
        scale = torch.tensor([width / window.resized[1], height / window.resized[0]] * 2)
        masks = None if each.masks is None else each.masks.cpu()
        found.append(Detections(each.boxes.cpu() * scale, each.labels.cpu(), each.scores.cpu(), masks))
    return found
