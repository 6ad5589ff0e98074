"""The classes that a segmenter predicts for test images, read one by one at their own size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from lamina.evaluate.dense.images import DenseImages
from lamina.evaluate.segment.miou import count_image
from lamina.evaluate.segment.window_options import SegmentWindows
from lamina.evaluate.segment.windows import WindowLogits, slide


@dataclass(frozen=True)
class ShownImage:
    """A test image with the classes of its pixels, true and predicted."""

    name: str
    image: Shaped[Tensor, "C H W"]
    truth: UInt8[Tensor, "H W"]
    predicted: UInt8[Tensor, "H W"]


@dataclass(frozen=True)
class SegmentationResult:
    """Counts of each image that could be read (`miou.count_image`), and some to show."""

    counts: Int64[Tensor, "n 3 K"]
    shown: tuple[ShownImage, ...]


def segment_images(
    predict: WindowLogits,
    images: DenseImages,
    windows: SegmentWindows,
    fill: Sequence[float],
    device: torch.device,
) -> SegmentationResult:
    """Predict every pixel of every image by overlapping windows (`windows.slide`).

    Args:
        predict: windows to logits, on `device`. images: with maps.
        windows, fill: how windows are cut, and what continues an image that is smaller.

    Raises:
        LaminaError: where no image can be read.
    """
    counts: list[Tensor] = []
    shown: list[ShownImage] = []
    for (batch,) in images.groups(1):
        assert batch.labels is not None
        image, truth = batch.images[0], batch.labels[0]
        predicted = slide(predict, image, windows, fill, device).argmax(0)
        counts.append(count_image(predicted, truth.to(device), len(images.source.classes)).cpu())
        if (name := images.shown(batch)) is not None:
            shown.append(ShownImage(name, image, truth, predicted.to("cpu", torch.uint8)))
    return SegmentationResult(torch.stack(counts), tuple(shown))
