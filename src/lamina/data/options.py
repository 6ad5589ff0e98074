"""The options of reading, cropping and loading images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, SHARE_ABOVE_0, Range, check_ranges

MAX_PIXELS = 178_956_970
"""Where Pillow itself refuses an image as a decompression bomb (about 13,000 x 13,000)."""
MAX_DECODE_MB = 2048
"""Enough for JPEG of 165, 8-bit PNG of all, WebP and AVIF of 100, and 16-bit RGB PNG of 89 million pixels."""
MAX_DECODE_SECONDS = 10.0
"""A PNG or AVIF of 100 million pixels takes about 2."""


@dataclass(frozen=True)
class Decoding:
    """How a file becomes an image: what `Source.read` needs to know."""

    in_chans: int | None = None
    """Channels of the result (conversions: `channels.fit_channels`); None keeps the file's own."""
    exif_orientation: bool = True
    """Turn the image as its EXIF tag says."""
    alpha_background: int = 255
    """The grey level (0 to 255) that transparent pixels are composited on."""
    max_pixels: int = MAX_PIXELS
    """Largest height x width that is decoded; judged from the header."""
    max_decode_mb: int = MAX_DECODE_MB
    """Most memory, in MiB, that decoding one image may take; counted from the header."""
    max_decode_seconds: float = MAX_DECODE_SECONDS
    """Most processor time, in seconds, that decoding one image may take."""


AS_STORED = Decoding()
"""Upright, with the channels that the file has."""

DECODING_FIELDS = ("exif_orientation", "alpha_background")
"""The fields of `DataOptions` that say how a file becomes an image, whatever is done with it then."""
LIMIT_FIELDS = ("max_pixels", "max_decode_mb", "max_decode_seconds")
"""The fields of `FileLimits` that say which files are too large, or take too long, to be read."""

FourChanges = tuple[float, float, float, float]
"""Of brightness, contrast, saturation and hue."""
_RANDOM_RESIZED = read_if("crop", "random_resized")
_SECOND_VIEW = read_if("second_view", "cmae")


@dataclass(frozen=True)
class FileLimits:
    """How much one file may take, how long a batch may take, and how many files may be unreadable."""

    max_pixels: Annotated[int, Range(1, MAX_PIXELS)] = MAX_PIXELS
    """Larger images (height x width, from the header) are refused undecoded; no more than Pillow allows."""
    max_decode_mb: Annotated[int, COUNT] = MAX_DECODE_MB
    """Most memory, in MiB, that decoding one image may take in each worker: all channels, bytes and copies,
    counted from the header. An image that needs more is an unreadable file. Raise it for large images of
    many channels, where there is memory for it; a run that goes on with --resume may raise it too."""
    max_decode_seconds: Annotated[float, POSITIVE] = MAX_DECODE_SECONDS
    """Most processor time, in seconds, that decoding one image may take; one that needs more is an unreadable
    file. Raise it for very large images on slow processors; a run that goes on with --resume may raise it
    too."""
    worker_timeout_seconds: Annotated[float, POSITIVE] = 600.0
    """Longest wait for a batch from the worker processes, in seconds; then the run is saved and ends. Raise
    it where single images take minutes to read."""
    bad_files_max_share: Annotated[float, SHARE] = 0.001
    """The run stops when more than this share of the files cannot be read..."""
    bad_files_min: Annotated[int, NOT_NEGATIVE] = 10
    """...but not before more than this many of them."""

    def __post_init__(self) -> None:
        """Refuse values that are out of range."""
        check_ranges(self)

    def bad_files_limit(self, n_files: int) -> int:
        """How many of `n_files` may be unreadable."""
        return max(self.bad_files_min, math.floor(self.bad_files_max_share * n_files))


def raised_limits(changed: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Those of the `changed` options (dotted names, each with its value of before and of now) that raise one
    of `LIMIT_FIELDS`.

    A run that goes on may raise them: the images that were read before are read as before, and those that
    were replaced for being over the limit are read from then on."""
    return {
        name: (before, now)
        for name, (before, now) in changed.items()
        if name.rpartition(".")[2] in LIMIT_FIELDS and before is not None and now is not None and now > before
    }


def higher_limits(a: FileLimits, b: FileLimits) -> dict[str, Any]:
    """The higher one of each of `LIMIT_FIELDS`: what a model's images could take, and what was asked for."""
    return {name: max(getattr(a, name), getattr(b, name)) for name in LIMIT_FIELDS}


@dataclass(frozen=True)
class DataOptions(FileLimits):
    """How training images are read, cropped and loaded."""

    crop: Literal["random_resized", "simple_resized", "center"] = "random_resized"
    """Crop of a training image: random_resized (MAE), simple_resized (PixMIM, MFF), or center (none)."""
    crop_scale: Annotated[tuple[float, float], SHARE_ABOVE_0, _RANDOM_RESIZED] = (0.2, 1.0)
    """Share of the image's area that a random_resized crop covers, smallest and largest."""
    crop_ratio: Annotated[tuple[float, float], POSITIVE, _RANDOM_RESIZED] = (3 / 4, 4 / 3)
    """Width over height of a random_resized crop before it is resized, smallest and largest."""
    crop_padding_px: Annotated[int, NOT_NEGATIVE, read_if("crop", "simple_resized")] = 4
    """Reflected border that a simple_resized crop may reach into, in pixels."""
    crop_px: Annotated[tuple[int, int] | None, COUNT] = None
    """Height and width of the crop before a second view is cut from it; None is the encoder's image size, and
    8/7 of it where there is a second view (256 for 224)."""
    flip: Annotated[float, SHARE] = 0.5
    """Probability of a horizontal flip."""
    jitter: Annotated[FourChanges | None, NOT_NEGATIVE] = None
    """Largest changes of brightness, contrast, saturation and hue (BEiT: 0.4 0.4 0.4 0); unset means
    none."""
    auto_augment: str | None = None
    """One of timm's policies for 8-bit colour images (DeiT: rand-m9-mstd0.5-inc1); unset means none."""
    erase: Annotated[float, SHARE] = 0.0
    """How often a rectangle is replaced by noise (DeiT: 0.25)."""
    second_view: Literal["none", "cmae"] = "none"
    """cmae: two windows of the crop (crop_px, larger than the image size), the second shifted and changed."""
    view_shift_px: Annotated[int | None, NOT_NEGATIVE, _SECOND_VIEW] = None
    """Largest shift of the second view against the first; unset means one pixel less than there is room (31
    for 224 in 256)."""
    view_jitter: Annotated[FourChanges, NOT_NEGATIVE, _SECOND_VIEW] = (0.4, 0.4, 0.4, 0.1)
    """Largest changes of the second view's brightness, contrast, saturation and hue."""
    view_jitter_share: Annotated[float, SHARE, _SECOND_VIEW] = 0.8
    """How often the second view's colours are changed."""
    view_grey_share: Annotated[float, SHARE, _SECOND_VIEW] = 0.2
    """How often the second view is made grey."""
    view_blur_share: Annotated[float, SHARE, _SECOND_VIEW] = 0.5
    """How often the second view is blurred."""
    eval_crop_share: Annotated[float, SHARE_ABOVE_0] = 0.875
    """Share of the short side that an evaluation's centre crop keeps (224 of 256); 1 for small images."""
    exif_orientation: bool = True
    """Turn photographs as their EXIF tag says, as viewers do; MAE, timm and torchvision ignore the tag."""
    alpha_background: Annotated[int, Range(0, 255)] = 255
    """Grey level (0 to 255) that transparent pixels are composited on, unless the encoder takes the alpha."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Processes that read and crop images; 0: the training process does. Results do not depend on it."""
    prefetch_batches: Annotated[int, COUNT] = 2
    """Batches that each worker prepares ahead."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        for name in ("crop_scale", "crop_ratio"):
            smallest, largest = getattr(self, name)
            if smallest > largest:
                raise LaminaError(f"data.{name} is {(smallest, largest)}; give the smallest first")

    def decoding(self, in_chans: int | None) -> Decoding:
        """The part of the options that `Source.read` needs."""
        return Decoding(
            in_chans,
            self.exif_orientation,
            self.alpha_background,
            self.max_pixels,
            self.max_decode_mb,
            self.max_decode_seconds,
        )
