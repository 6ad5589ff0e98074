"""Logits of a whole image from windows that overlap, at the size that a protocol tests at."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lamina.data.augment.crops import resize
from lamina.data.dense.crops import Window
from lamina.evaluate.segment.feature_maps import resize_maps
from lamina.evaluate.segment.window_options import SegmentWindows

WindowLogits = Callable[[Shaped[Tensor, "B C H W"]], Float[Tensor, "B K H W"]]
"""Windows to logits of the same size; in evaluation mode."""


@torch.inference_mode()
def slide(
    predict: WindowLogits,
    image: Shaped[Tensor, "C H W"],
    windows: SegmentWindows,
    fill: Sequence[float],
    device: torch.device,
) -> Float[Tensor, "K H W"]:
    """Logits of each pixel of an image, on `device`.

    The image is resized so that its short side is `windows.base` (or its long side `windows.max_side`, where
    that is less), covered by windows `windows.stride` apart, the last of which end at its edge, and logits
    are averaged where windows overlap, then resized to the image's own size: mmsegmentation's "slide" mode.
    An image smaller than a window is continued by `fill`, values of the channels on [0, 1].
    """
    own = (image.shape[-2], image.shape[-1])
    size = _tested_at(own, windows)
    image = resize(image, size)
    window = windows.pixels
    places = [
        (top, left)
        for top in starts(size[0], window[0], windows.steps[0])
        for left in starts(size[1], window[1], windows.steps[1])
    ]
    whole = (max(size[0], window[0]), max(size[1], window[1]))
    total, seen = None, torch.zeros(whole, device=device)
    for i in range(0, len(places), windows.batch_size):
        part = places[i : i + windows.batch_size]
        cut = torch.stack([Window(size, top, left, window).image(image, fill) for top, left in part])
        found = predict(cut.to(device, non_blocking=True))
        if total is None:
            total = torch.zeros(found.shape[1], *whole, device=device)
        for (top, left), logits in zip(part, found, strict=True):
            place = (slice(top, top + window[0]), slice(left, left + window[1]))
            total[:, place[0], place[1]] += logits
            seen[place] += 1
    assert total is not None
    return resize_maps((total / seen)[None, :, : size[0], : size[1]], own)[0]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: `stride` apart, the last one at the end; one at 0 where it is
    longer."""
    count = max(0, -(-(length - window) // stride)) + 1
    return [max(0, min(i * stride, length - window)) for i in range(count)]


def _tested_at(own: tuple[int, int], windows: SegmentWindows) -> tuple[int, int]:
    assert windows.base is not None
    factor = min(windows.base / min(own), max(windows.max_side, windows.base) / max(own))
    return max(1, round(own[0] * factor)), max(1, round(own[1] * factor))
