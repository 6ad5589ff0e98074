"""`sample:photos`: crops of the photographs that ship inside the scikit-image and scikit-learn wheels.

The class of a crop is its photograph. Each photograph is divided along its long side into a training and
a validation region with at least one crop's width between them, so the two share no pixel.

    train | gap | val                         regions=1
    train | gap | val : val | gap | train     regions=2: each half is a class of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import decode_file
from lamina.data.decode.unreadable import Unreadable
from lamina.data.options import AS_STORED
from lamina.data.query import parse_query
from lamina.data.samples.catalog import parts_of
from lamina.data.sources import ArraySource, Split

# Left out: drawings and text (logo, page, text, horse, phantom, ...), the right half of the stereo pair.
_SKIMAGE = (
    "astronaut.png brick.png camera.png cell.png chelsea.png coffee.png coins.png grass.png gravel.png "
    "hubble_deep_field.jpg ihc.png moon.png motorcycle_left.png retina.jpg rocket.jpg"
)
_PHOTOGRAPHS = {
    **dict.fromkeys(_SKIMAGE.split(), ("skimage", "data")),
    **dict.fromkeys(("china.jpg", "flower.jpg"), ("sklearn", "datasets/images")),
}


@dataclass(frozen=True)
class PhotosOptions:
    """How the photographs are cut: harder with smaller crops, more regions, or in grey."""

    crop: int = 64
    """Side of a crop in pixels."""
    stride: int = 0
    """Distance in pixels between the corners of neighbouring crops. 0: that of crop, so that crops do not
    overlap."""
    regions: int = 1
    """Number of stretches that each photograph is divided into along its long side; each is a class of its
    own."""
    grey: bool = False
    """Give one grey channel (luminance) instead of RGB."""
    most: int = 200
    """Most training crops of each class, evenly spread; validation has crops in proportion."""
    val_percent: int = 30
    """Percentage of the usable length of each stretch that is for validation."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if self.crop < 8 or self.regions < 1 or self.most < 1 or not 0 < self.val_percent < 100:
            raise LaminaError("sample:photos needs crop >= 8, regions >= 1, most >= 1, val_percent 1 to 99")


@dataclass(frozen=True)
class Stretch:
    """A class: pixels [start, end) along a photograph's long side, of which each part has its own."""

    start: int
    end: int
    train: range
    val: range

    def corners(self, part: str) -> range:
        """Where the crops of a part begin along the long side."""
        return self.train if part == "train" else self.val


def stretches(length: int, options: PhotosOptions) -> list[Stretch]:
    """Divide a long side of `length` px; neighbours are mirrored so that equal parts meet.

    Raises:
        LaminaError: where a stretch has no room for a training crop, a gap and a validation crop.
    """
    crop, step = options.crop, options.stride or options.crop
    size = length // options.regions
    val = max(crop, (size - crop) * options.val_percent // 100)
    train = size - crop - val
    if train < crop:
        raise LaminaError(
            f"sample:photos has no room for crops of {crop} px in {options.regions} regions of {length} px; "
            "take smaller crops or fewer regions"
        )
    found = []
    for k in range(options.regions):
        start, end = k * size, (k + 1) * size
        head, tail = (train, val) if k % 2 == 0 else (val, train)
        first = range(start, start + head - crop + 1, step)
        last = range(end - tail, end - crop + 1, step)
        found.append(Stretch(start, end, *((first, last) if k % 2 == 0 else (last, first))))
    return found


def open_photos(query: str, split: Split | None) -> ArraySource:
    """The crops of one part (None: the training part), as the parameters in `query` say."""
    options = parse_query(query, PhotosOptions)
    images, names, labels, classes = [], [], [], []
    for file, (package, folder) in sorted(_PHOTOGRAPHS.items()):
        photo = _load(file, package, folder, options.grey)
        for k, stretch in enumerate(stretches(max(photo.shape[1:]), options)):
            classes.append(Path(file).stem + (f"-{k + 1}" if options.regions > 1 else ""))
            for part in parts_of(split):
                corners = _corners(photo, stretch, part, options)
                images += [photo[:, y : y + options.crop, x : x + options.crop] for y, x in corners]
                names += [f"{file}@{x},{y}" for y, x in corners]
                labels += [len(classes) - 1] * len(corners)
    return ArraySource(torch.stack(images), names, labels, classes)


def _corners(
    photo: UInt8[Tensor, "C H W"], stretch: Stretch, part: str, options: PhotosOptions
) -> list[tuple[int, int]]:
    """Top left corners (y, x) of a part's crops, thinned evenly to the number that is wanted."""
    _, height, width = photo.shape
    across = range(0, min(height, width) - options.crop + 1, options.stride or options.crop)
    along = stretch.corners(part)
    found = [(a, b) if height > width else (b, a) for a, b in product(along, across)]
    share = 1.0 if part == "train" else options.val_percent / (100 - options.val_percent)
    keep = min(len(found), max(1, round(options.most * share)))
    return [found[i * len(found) // keep] for i in range(keep)]


def _load(file: str, package: str, folder: str, grey: bool) -> UInt8[Tensor, "C H W"]:
    found = find_spec(package)
    if found is None or found.origin is None:
        raise LaminaError(f"sample:photos reads photographs of the package {package}; install it")
    try:
        image = decode_file(str(Path(found.origin).parent / folder / file), AS_STORED).image
    except Unreadable as error:
        raise LaminaError(f"{file} of the package {package} cannot be read ({error}); reinstall it") from None
    if len(image) not in (1, 3):
        image = image[:3]  # no photograph of these has an alpha that is not opaque
    return fit_channels(image, 1 if grey else 3, alpha=False).contiguous()
