"""Windows of resized images, alike for the image, the classes of its pixels and its objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from lamina.core.batch import Objects
from lamina.data.augment.crops import resize
from lamina.data.dense.sources import IGNORE
from lamina.data.dense.window_options import WindowOptions

TRIES = 10
"""Places for a window that are tried until no class covers too much of it."""
N_DRAWS = 2 + 2 * TRIES


@dataclass(frozen=True)
class Window:
    """An image resized to `resized`, of which `size` px from (top, left) on are taken, filled up below and to
    the right where they reach beyond, and mirrored."""

    resized: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    flip: bool = False

    def image(
        self, image: Shaped[Tensor, "C H W"], fill: Sequence[float] | None = None
    ) -> Shaped[Tensor, "C h w"]:
        """The window of an image; beyond it the value `fill` of each channel, on [0, 1], such as the mean
        that normalisation takes off, or 0."""
        part = self._cut(resize(image, self.resized))
        beyond = torch.tensor([0.0] * len(image) if fill is None else list(fill))
        if not image.is_floating_point():
            beyond = (beyond * torch.iinfo(image.dtype).max).round()
        whole = beyond.to(image.dtype)[:, None, None].expand(-1, *self.size).clone()
        whole[:, : part.shape[1], : part.shape[2]] = part
        return whole.flip(-1) if self.flip else whole

    def map(self, classes: UInt8[Tensor, "H W"]) -> UInt8[Tensor, "h w"]:
        """The same window of the classes; `IGNORE` beyond the image."""
        part = self._cut(_nearest(classes[None], self.resized))[0]
        whole = part.new_full(self.size, IGNORE)
        whole[: part.shape[0], : part.shape[1]] = part
        return whole.flip(-1) if self.flip else whole

    def objects(self, objects: Objects, least_px: int = 1) -> Objects:
        """The objects of which the window shows `least_px` or more; boxes are drawn around what it shows."""
        part = self._cut(_nearest(objects.masks, self.resized))
        masks = torch.zeros(len(part), *self.size, dtype=torch.bool)
        masks[:, : part.shape[1], : part.shape[2]] = part
        masks = masks.flip(-1) if self.flip else masks
        shown = masks.sum((1, 2)) >= least_px
        masks = masks[shown]
        return Objects(boxes_around(masks), objects.labels[shown], masks, objects.crowd[shown])

    def _cut(self, resized: Shaped[Tensor, "C h2 w2"]) -> Shaped[Tensor, "C h3 w3"]:
        (height, width), top, left = self.size, self.top, self.left
        return resized[:, top : top + height, left : left + width]


def draw_window(
    height: int,
    width: int,
    options: WindowOptions,
    draws: Sequence[float],
    classes: UInt8[Tensor, "H W"] | None = None,
) -> Window:
    """The window that `N_DRAWS` numbers in [0, 1) stand for, of an image of `height` x `width` px.

    With `classes`, the first of `TRIES` places at which no class covers more than `max_class_share` of the
    pixels that have one; if there is none, the last.
    """
    low, high = options.scale
    scale = low + draws[0] * (high - low)
    reference = min(height, width) if options.side == "short" else max(height, width)
    factor = scale * options.base / reference
    resized = max(1, round(height * factor)), max(1, round(width * factor))
    flip = draws[1] < options.flip
    room = [max(0, have - want) for have, want in zip(resized, options.size, strict=True)]
    for t in range(TRIES):
        top, left = (int(draws[2 + 2 * t + axis] * (room[axis] + 1)) for axis in (0, 1))
        window = Window(resized, top, left, options.size, flip)
        if classes is None or options.max_class_share == 1 or not any(room):
            return window
        if _largest_share(window.map(classes)) <= options.max_class_share:
            return window
    return window


def boxes_around(masks: Bool[Tensor, "n H W"]) -> Float[Tensor, "n 4"]:
    """The boxes of masks, x1, y1, x2, y2 in px between pixels; 0 for a mask without a pixel."""
    n, height, width = masks.shape
    if n == 0:
        return torch.zeros(0, 4)
    found = []
    for along, length in ((masks.any(1), width), (masks.any(2), height)):
        place = torch.arange(length)
        first = torch.where(along, place, length).amin(1)
        last = torch.where(along, place + 1, 0).amax(1)
        found += [torch.minimum(first, last), last]
    x1, x2, y1, y2 = found
    return torch.stack((x1, y1, x2, y2), dim=1).float()


def _nearest(values: Shaped[Tensor, "n H W"], size: tuple[int, int]) -> Shaped[Tensor, "n h w"]:
    """Resized without mixing values, the pixel whose centre is nearest."""
    if tuple(values.shape[1:]) == size or not len(values):
        return values if len(values) else values.new_zeros(0, *size)
    resized = F.interpolate(values[None].to(torch.uint8), size=size, mode="nearest-exact")[0]
    return resized.to(values.dtype)


def _largest_share(classes: UInt8[Tensor, "h w"]) -> float:
    counts = torch.bincount(classes.flatten().long(), minlength=IGNORE + 1)[:IGNORE]
    total = int(counts.sum())
    return float(counts.max()) / total if total else 0.0
