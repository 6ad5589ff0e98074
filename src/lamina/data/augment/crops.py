"""Crops and flips as functions of an image and of uniform numbers that were drawn beforehand.

The numbers of a whole batch come from `lamina.core.rng` in one call, keyed by sample. Images are uint8, or
float in [0, 1], of any number of channels; resizing is bicubic and antialiased, as in MAE (where a float
result would leave [0, 1], it is clamped, as uint8 always is).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from lamina.core.errors import LaminaError
from lamina.data.decode.reduction import Reduced, largest_factor
from lamina.data.options import DataOptions


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Crop(Protocol):
    """An image and `n_draws` numbers in [0, 1) to an image of a fixed size."""

    @property
    def n_draws(self) -> int:
        """How many numbers one image takes."""
        ...

    def __call__(
        self, image: Shaped[Tensor, "C H W"], draws: Sequence[float], reduced: Reduced | None = None
    ) -> Shaped[Tensor, "C h w"]:
        """Crop one image, which may be `reduced`: the crop is that of the whole one."""
        ...

    def factor(self, height: int, width: int, draws: Sequence[float]) -> int:
        """The factor (1, 2, 4 or 8) by which an image of `height` x `width` px may be reduced before: what is
        cut out of it is not enlarged."""
        ...


def resize(image: Shaped[Tensor, "C H W"], size: tuple[int, int]) -> Shaped[Tensor, "C h w"]:
    """Bicubic, antialiased, within the image's range; an image of that size is returned as it is."""
    if tuple(image.shape[1:]) == tuple(size):
        return image
    if image.is_cpu:  # what torchvision does then, without its checks, which take a tenth of the time
        resized = interpolate(image[None], list(size), mode="bicubic", antialias=True)[0]
    else:
        resized = F.resize_image(image, list(size), InterpolationMode.BICUBIC, antialias=True)
    return resized.clamp_(0, 1) if resized.is_floating_point() else resized


def resize_part(
    image: Shaped[Tensor, "C H W"], part: Box, size: tuple[int, int], reduced: Reduced | None = None
) -> Shaped[Tensor, "C h w"]:
    """A part of an image, resized. Of a `reduced` image it is the same part: its edges may lie within pixels,
    which Pillow's bicubic, antialiased resizing takes in proportion."""
    top, left, height, width = part
    if reduced is None:
        return resize(image[:, top : top + height, left : left + width], size)
    edges = [edge / reduced.factor for edge in (top, top + height, left, left + width)]
    first_row, first_column = int(edges[0]), int(edges[2])
    rows, columns = slice(first_row, math.ceil(edges[1])), slice(first_column, math.ceil(edges[3]))
    grey = len(image) == 1 or image.stride(0) == 0  # grey that was repeated for each channel
    pixels = image[0, rows, columns] if grey else image[:, rows, columns].permute(1, 2, 0)
    box = (edges[2] - first_column, edges[0] - first_row, edges[3] - first_column, edges[1] - first_row)
    whole = Image.fromarray(pixels.contiguous().numpy())
    made = torch.from_numpy(np.array(whole.resize(size[::-1], Image.Resampling.BICUBIC, box)))
    return made.expand(len(image), -1, -1) if grey else made.permute(2, 0, 1)


@dataclass(frozen=True)
class RandomResizedCrop:
    """MAE's crop: a box of random area and aspect ratio, resized (torchvision's `RandomResizedCrop`).

    Ten boxes are tried, each from four numbers (area, log aspect ratio, top, left); if none fits, the
    largest centred box whose aspect ratio is within `ratio` is taken.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    n_draws: int = 40

    def __call__(
        self, image: Shaped[Tensor, "C H W"], draws: Sequence[float], reduced: Reduced | None = None
    ) -> Shaped[Tensor, "C h w"]:
        """Crop one image."""
        return resize_part(image, self.box(*_size_of(image, reduced), draws), self.size, reduced)

    def factor(self, height: int, width: int, draws: Sequence[float]) -> int:
        """The factor by which the image may be reduced before."""
        return largest_factor(self.box(height, width, draws)[2:], self.size)

    def box(self, height: int, width: int, draws: Sequence[float]) -> Box:
        """The part of an image of `height` x `width` px that is cut out."""
        log_low, log_high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for i in range(0, self.n_draws, 4):
            area = height * width * (self.scale[0] + draws[i] * (self.scale[1] - self.scale[0]))
            aspect = math.exp(log_low + draws[i + 1] * (log_high - log_low))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return Box(int(draws[i + 2] * (height - h + 1)), int(draws[i + 3] * (width - w + 1)), h, w)
        return self._central_box(height, width)

    def _central_box(self, height: int, width: int) -> Box:
        h, w = height, width
        if width < height * self.ratio[0]:
            h = min(height, round(width / self.ratio[0]))
        elif width > height * self.ratio[1]:
            w = min(width, round(height * self.ratio[1]))
        return Box((height - h) // 2, (width - w) // 2, h, w)


@dataclass(frozen=True)
class SimpleResizedCrop:
    """PixMIM's crop (also of the MFF reference): resize to cover `size`, then shift by a few pixels.

    The short side is resized to `size`, `padding` reflected pixels are put on each side, and a box of
    `size` is taken at a random place (section 3.3 of PixMIM, arXiv 2303.02416).
    """

    size: tuple[int, int]
    padding: int = 4
    n_draws: int = 2

    def __call__(
        self, image: Shaped[Tensor, "C H W"], draws: Sequence[float], reduced: Reduced | None = None
    ) -> Shaped[Tensor, "C h w"]:
        """Crop one image."""
        image = cover(image, self.size, reduced)
        (h, w), (height, width), pad = self.size, image.shape[1:], self.padding
        top, left = (int(draws[0] * (height + 2 * pad - h + 1)), int(draws[1] * (width + 2 * pad - w + 1)))
        rows, columns = _reflected(top - pad, h, height), _reflected(left - pad, w, width)
        return image.index_select(1, rows).index_select(2, columns)

    def factor(self, height: int, width: int, draws: Sequence[float]) -> int:
        """The factor by which the image may be reduced before."""
        return _factor_to_cover(height, width, self.size)


def _reflected(start: int, count: int, length: int) -> Int64[Tensor, "count"]:
    """Indices start, start + 1, ... into an axis that goes on beyond its ends as in a mirror."""
    last = length - 1
    return last - (last - torch.arange(start, start + count).abs()).abs()


@dataclass(frozen=True)
class CenterCrop:
    """The evaluation's crop: resize so that the centre box of `size` keeps `share` of the short side."""

    size: tuple[int, int]
    share: float = 0.875
    n_draws: int = 0

    def __call__(
        self, image: Shaped[Tensor, "C H W"], draws: Sequence[float] = (), reduced: Reduced | None = None
    ) -> Shaped[Tensor, "C h w"]:
        """Crop one image; nothing is random."""
        h, w = self.size
        image = cover(image, self._target, reduced)
        top, left = (image.shape[1] - h) // 2, (image.shape[2] - w) // 2
        return image[:, top : top + h, left : left + w]

    def factor(self, height: int, width: int, draws: Sequence[float] = ()) -> int:
        """The factor by which the image may be reduced before."""
        return _factor_to_cover(height, width, self._target)

    @property
    def _target(self) -> tuple[int, int]:
        h, w = self.size
        return max(h, round(h / self.share)), max(w, round(w / self.share))


def cover(
    image: Shaped[Tensor, "C H W"], size: tuple[int, int], reduced: Reduced | None = None
) -> Shaped[Tensor, "C h2 w2"]:
    """Resize to cover `size`; of an image more than 16 times as long as that, only the middle is kept."""
    middle = _middle(*_size_of(image, reduced), size)
    return resize_part(image, middle, covering(middle.height, middle.width, size), reduced)


def _middle(height: int, width: int, size: tuple[int, int]) -> Box:
    """An image, but for the ends of a strip: one of 1 x 100,000 px would become gigabytes."""
    most_h, most_w = -(-16 * width * size[0] // size[1]), -(-16 * height * size[1] // size[0])
    h, w = min(height, most_h), min(width, most_w)
    return Box((height - h) // 2, (width - w) // 2, h, w)


def _factor_to_cover(height: int, width: int, size: tuple[int, int]) -> int:
    middle = _middle(height, width, size)
    return largest_factor(middle[2:], covering(middle.height, middle.width, size))


def _size_of(image: Shaped[Tensor, "C H W"], reduced: Reduced | None) -> tuple[int, int]:
    """The height and width of the whole image."""
    return (image.shape[1], image.shape[2]) if reduced is None else (reduced.height, reduced.width)


def covering(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of that aspect ratio that covers `size` (for squares: torchvision's short side)."""
    h, w = size
    if height * w <= width * h:  # the height decides
        return h, max(w, int(h * width / height))
    return max(h, int(w * height / width)), w


def make_crop(options: DataOptions, image_size: tuple[int, int]) -> Crop:
    """The training crop that the options name: `crop_px` or else `image_size` large, 8/7 of it for two
    views."""
    size = options.crop_px or image_size
    if options.crop_px is None and options.second_view != "none":  # room for a shift: 256 px for 224
        size = (round(image_size[0] * 8 / 7), round(image_size[1] * 8 / 7))
    if options.crop == "random_resized":
        return RandomResizedCrop(size, options.crop_scale, options.crop_ratio)
    if options.crop == "simple_resized":
        if options.crop_padding_px >= min(size):
            raise LaminaError(
                f"data.crop_padding_px must be smaller than the crop of {size[0]} x {size[1]} px"
            )
        return SimpleResizedCrop(size, options.crop_padding_px)
    return CenterCrop(size, options.eval_crop_share)
