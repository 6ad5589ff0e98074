"""The options of reading, cropping and loading images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from lamina.core.choices import read_if
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SHARE, SHARE_ABOVE_0, Range, check_ranges
from lamina.data.value_range import (
    BY_FILE,
    NO_FILL,
    Nodata,
    ValueRange,
    parse_nodata,
    parse_value_range,
    value_range_text,
)

if TYPE_CHECKING:  # options import no torch
    from lamina.data.decode.scratch import Scratch

MAX_PIXELS = 178_956_970
"""Where Pillow itself refuses an image as a decompression bomb (about 13,000 x 13,000)."""
MAX_DECODE_MB = 2048
"""Enough for JPEG of 165, 8-bit PNG of all, WebP and AVIF of 100, and 16-bit RGB PNG of 89 million pixels."""
MAX_DECODE_SECONDS = 10.0
"""A PNG or AVIF of 100 million pixels takes about 2."""


Pages = Literal["first", "channels"]


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
    """Largest height x width that is decoded; read from the header."""
    max_decode_mb: int = MAX_DECODE_MB
    """Most memory, in MiB, that decoding one image may take; counted from the header."""
    max_decode_seconds: float = MAX_DECODE_SECONDS
    """Most processor time, in seconds, that decoding one image may take."""
    reduce: Callable[[int, int], int] | None = None
    """From the height and width of an image as it is turned, the factor (1, 2, 4 or 8) by which it may be
    decoded smaller; what is not JPEG is not. None: nothing is."""
    scratch: Scratch | None = None
    """Memory into which JPEGs are decoded; the next one overwrites the image. None: each has its own."""
    pages: Pages = "first"
    """Which of the pages, frames or planes of a file are read."""
    value_range: ValueRange | None = None
    """The stored values that become 0 and 1; None: those of the pixels' type."""
    nodata: float | Nodata = BY_FILE
    """The value of pixels without data, which are filled (`values.fill`)."""


AS_STORED = Decoding()
"""Upright, with the channels that the file has."""

DECODING_FIELDS = ("exif_orientation", "alpha_background", "pages", "value_range", "nodata")
"""The fields of `DataOptions` that say how a file becomes an image, whatever is done with it then."""
EARLIER_DECODING = {"pages": "first", "value_range": None, "nodata": NO_FILL}
"""How files became images before there were these fields."""
LIMIT_FIELDS = ("max_pixels", "max_decode_mb", "max_decode_seconds")
"""The fields of `FileLimits` that say which files are too large, or take too long, to be read."""

FourChanges = tuple[float, float, float, float]
"""Largest changes of brightness, contrast, saturation and hue."""
_RANDOM_RESIZED = read_if("crop", "random_resized")
_SECOND_VIEW = read_if("second_view", "cmae")


@dataclass(frozen=True)
class FileLimits:
    """How much one file may take, how long a batch may take, and how many files may be unreadable."""

    max_pixels: Annotated[int, Range(1, MAX_PIXELS)] = MAX_PIXELS
    """Largest image that is read, as height x width from its header, in pixels; larger ones are refused
    undecoded. Pillow allows no more than the default."""
    max_decode_mb: Annotated[int, COUNT] = MAX_DECODE_MB
    """Most memory, in MiB, that decoding one image may take in each worker: all channels, bytes and copies,
    counted from the header. An image that needs more counts as unreadable. Raise it for large images of many
    channels, where there is memory for it; a run that is resumed may raise it too."""
    max_decode_seconds: Annotated[float, POSITIVE] = MAX_DECODE_SECONDS
    """Most processor time, in seconds, that decoding one image may take; an image that needs more counts as
    unreadable. Raise it for very large images on slow processors; a run that is resumed may raise it too."""
    worker_timeout_seconds: Annotated[float, POSITIVE] = 600.0
    """Longest wait, in seconds, for a batch from the worker processes; after it the run is saved and ends.
    Raise it where reading a single image takes minutes."""
    bad_files_max_share: Annotated[float, SHARE] = 0.001
    """Largest share of unreadable files that is tolerated; beyond it the run stops, unless there are no more
    than data.bad_files_min."""
    bad_files_min: Annotated[int, NOT_NEGATIVE] = 10
    """Number of unreadable files that is always tolerated, whatever share they are."""

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
class LoadingOptions(FileLimits):
    """How images are loaded; results do not depend on it, but for files that are over a limit."""

    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Number of processes that read and crop images; 0: the training process does it. Results do not depend
    on it."""
    prefetch_batches: Annotated[int, COUNT] = 2
    """Number of batches that each worker prepares ahead. More need more memory."""


@dataclass(frozen=True)
class AugmentOptions(LoadingOptions):
    """How training images are cropped and augmented."""

    crop: Literal["random_resized", "simple_resized", "center"] = "random_resized"
    """How training images are cropped. random_resized: a random part, resized to the image size (MAE).
    simple_resized: the image resized to the image size, and a crop of it with a reflected border (PixMIM,
    MFF). center: the centre, the same in each epoch."""
    crop_scale: Annotated[tuple[float, float], SHARE_ABOVE_0, _RANDOM_RESIZED] = (0.2, 1.0)
    """Smallest and largest share of the image's area that a random_resized crop covers."""
    crop_ratio: Annotated[tuple[float, float], POSITIVE, _RANDOM_RESIZED] = (3 / 4, 4 / 3)
    """Smallest and largest width over height of a random_resized crop before it is resized."""
    crop_padding_px: Annotated[int, NOT_NEGATIVE, read_if("crop", "simple_resized")] = 4
    """Width in pixels of the reflected border that a simple_resized crop may reach into."""
    flip: Annotated[float, SHARE] = 0.5
    """Probability of a horizontal flip. 0: never, for images whose left and right have a meaning."""
    jitter: Annotated[FourChanges | None, NOT_NEGATIVE] = None
    """Largest changes of brightness, contrast, saturation and hue (BEiT: 0.4 0.4 0.4 0). Unset: no colour
    changes."""
    auto_augment: str | None = None
    """Augmentation policy of timm, for 8-bit colour images (DeiT: rand-m9-mstd0.5-inc1). Unset: none."""
    erase: Annotated[float, SHARE] = 0.0
    """Probability that a rectangle of the image is replaced by noise (DeiT: 0.25)."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        for name in ("crop_scale", "crop_ratio"):
            smallest, largest = getattr(self, name)
            if smallest > largest:
                raise LaminaError(f"data.{name} is {(smallest, largest)}; give the smallest first")


@dataclass(frozen=True)
class DenseDataOptions(LoadingOptions):
    """How images with dense labels are loaded and their colours changed; their crops are the window's."""

    jitter: Annotated[FourChanges | None, NOT_NEGATIVE] = None
    """Largest changes of brightness, contrast, saturation and hue (BEiT: 0.4 0.4 0.4 0). Unset: no colour
    changes."""


@dataclass(frozen=True)
class DataOptions(AugmentOptions):
    """How images are read, cropped, augmented and loaded."""

    crop_px: Annotated[tuple[int, int] | None, COUNT] = None
    """Height and width in pixels of the crop from which both views are cut. Unset: the encoder's image size,
    or 8/7 of it where there is a second view (256 for 224)."""
    second_view: Literal["none", "cmae"] = "none"
    """Second view of each image. none: there is one view. cmae: two windows of one crop (data.crop_px, larger
    than the image size), the second shifted and with changed colours."""
    view_shift_px: Annotated[int | None, NOT_NEGATIVE, _SECOND_VIEW] = None
    """Largest shift, in pixels, of the second view against the first. Unset: one pixel less than there is
    room for (31 for 224 in 256)."""
    view_jitter: Annotated[FourChanges, NOT_NEGATIVE, _SECOND_VIEW] = (0.4, 0.4, 0.4, 0.1)
    """Largest changes of brightness, contrast, saturation and hue of the second view."""
    view_jitter_share: Annotated[float, SHARE, _SECOND_VIEW] = 0.8
    """Probability that the colours of the second view are changed."""
    view_grey_share: Annotated[float, SHARE, _SECOND_VIEW] = 0.2
    """Probability that the second view is turned grey."""
    view_blur_share: Annotated[float, SHARE, _SECOND_VIEW] = 0.5
    """Probability that the second view is blurred."""
    eval_crop_share: Annotated[float, SHARE_ABOVE_0] = 0.875
    """Share of the short side that the centre crop keeps in evaluations (0.875: 224 of 256 px). Take 1 for
    small images."""
    exif_orientation: bool = True
    """Turn photographs as their EXIF tag says, as image viewers do; MAE, timm and torchvision ignore the
    tag."""
    alpha_background: Annotated[int, Range(0, 255)] = 255
    """Grey level, 0 to 255, behind transparent pixels, unless the encoder takes the alpha channel."""
    jpeg_decoding: Literal["full", "reduced"] | None = None
    """How JPEGs are decoded. full: every pixel. reduced: at a half, a quarter or an eighth of their size
    where the crop still has at least as many pixels as the network's input. This reads photographs of 12
    megapixels 1.5 to 2 times as fast, and changes crops by a PSNR of about 40 dB (at least 30). Unset:
    reduced in a new run; what starts from a model reads images as the model's run did."""
    pages: Pages = "first"
    """What is read of a TIFF or DICOM file of several pages, frames, depths or times. first: the first one,
    with all its channels; a line says how many files have more. channels: all of them, in the file's order,
    as channels of one image, for volumes and time series; set the number by --in-chans."""
    value_range: str | None = None
    """Stored values that become 0 and 1, as LOW:HIGH, such as 0:10000 or -1024:3071, or one pair for each
    channel, joined by commas. Values between them are mapped linearly and others are clipped; a line says
    how many. Needed for signed integers, for integers of 32 bits and for floats outside of 0 to 1; useful
    where sensors use a part of 16 bits. Unset: the range of the pixels' type."""
    nodata: Nodata | float | None = None
    """Value that marks pixels without data; NaN marks them too, unless this is keep. Each is filled by the
    mean of the other pixels of the same image and channel. file: the value that the file itself names
    (GDAL_NODATA in a TIFF). nan: NaN alone. keep: nothing is filled. Unset: file in a new run; what starts
    from a model reads images as the model's run did."""
    views_per_read: Annotated[int, COUNT] = 1
    """Number of crops, each with its own mask, that one batch takes of each image that is read. Take 2 to 4
    where reading limits the speed; crops of one image in a batch make its gradient a little noisier. An epoch
    still has as many crops as there are images, so that steps and schedule stay the same, and each image is
    read once in so many epochs. The batch size of each process must be a multiple of it."""

    def __post_init__(self) -> None:
        """Refuse invalid values; texts of numbers become the same for the same numbers."""
        super().__post_init__()
        if self.value_range is not None:
            object.__setattr__(self, "value_range", value_range_text(parse_value_range(self.value_range)))
        if self.nodata is not None:
            object.__setattr__(self, "nodata", parse_nodata(str(self.nodata)))
        if self.views_per_read > 1 and self.second_view != "none":
            raise LaminaError(
                f"data.views_per_read is {self.views_per_read}, and with data.second_view {self.second_view} "
                "all crops of a batch must be of different images; leave one of the two out"
            )

    @property
    def reduces(self) -> bool:
        """Whether JPEGs are decoded at a reduced size."""
        return self.jpeg_decoding == "reduced"

    def decoding(self, in_chans: int | None) -> Decoding:
        """The part of the options that `Source.read` needs."""
        return Decoding(
            in_chans,
            self.exif_orientation,
            self.alpha_background,
            self.max_pixels,
            self.max_decode_mb,
            self.max_decode_seconds,
            pages=self.pages,
            value_range=None if self.value_range is None else parse_value_range(self.value_range),
            nodata=BY_FILE if self.nodata is None else self.nodata,
        )


def with_reading_of(options: LoadingOptions, own: DataOptions) -> DataOptions:
    """The options of a task that starts from a model, completed: files become images, and test images are
    cropped, as they were for the model (`own`), whose limits of files count where they are higher."""
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    reading = {name: getattr(own, name) for name in ("eval_crop_share", *DECODING_FIELDS)}
    reading["jpeg_decoding"] = "reduced" if own.reduces else "full"
    return DataOptions(**{**given, **reading, **higher_limits(own, options)})


def reading_facts(options: DataOptions) -> dict[str, Any]:
    """`decoding_facts`, and whether JPEGs are decoded at a reduced size, where they are."""
    return {**decoding_facts(options), **({"jpeg_decoding": "reduced"} if options.reduces else {})}


def decoding_facts(options: DataOptions) -> dict[str, Any]:
    """The options of `DECODING_FIELDS`, for what is kept beside numbers that depend on them; without those
    that read files as earlier versions did, which did not write them down."""
    found = {name: getattr(options, name) for name in DECODING_FIELDS}
    return {
        n: v for n, v in found.items() if n not in EARLIER_DECODING or v not in (None, EARLIER_DECODING[n])
    }
