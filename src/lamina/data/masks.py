"""Classes of pixels from folders of mask files, one beside each image, as ADE20K has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lamina.data.decode import guarded, image_size
from lamina.data.dense import IGNORE
from lamina.data.files import Names, printable
from lamina.data.find_files import find_images
from lamina.data.limits import check_memory, check_pixels
from lamina.data.notes import collected
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import FileSource
from lamina.data.unreadable import Reason, Unreadable
from lamina.errors import LaminaError

_PARTS = {"train": ("training", "train"), "val": ("validation", "val", "valid")}
_FOLDERS = ("annotations", "masks")
_NAME_FILES = ("classes.txt", "objectInfo150.txt")
_MASK_SUFFIXES = (".png", ".PNG")


@dataclass(frozen=True)
class MaskOptions:
    """How the numbers in mask files are meant."""

    reduce_zero_label: bool | None = None
    """0 counts as nothing and k is class k - 1, as in ADE20K; unset: where objectInfo150.txt is there."""


PLAIN = MaskOptions()
"""Nothing is said."""


class MaskFolder:
    """A `MapSource` of images and mask files: palette or grey PNG whose values are the classes.

    255 counts as nothing, and 0 too with `reduce_zero_label`. `folder` has the masks, in the order of images.
    """

    def __init__(
        self, images: FileSource, folder: str, masks: Sequence[str], classes: Sequence[str], reduce: bool
    ) -> None:
        self.images, self.classes, self.reduce_zero_label = images, tuple(classes), reduce
        self._folder, self._masks = folder, Names(masks)

    def path(self, i: int) -> str:
        """The path of mask i."""
        return os.path.join(self._folder, self._masks[i])

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """Classes of image i, `IGNORE` where none; raises `Unreadable` where the mask does not fit.

        The image's size is read from its header. Nothing is resized, and a mask is never turned: where EXIF
        turns the image alone, their sizes differ.
        """
        numbers = _reduced(read_numbers(self.path(i), how), self.reduce_zero_label)
        height, width = image_size(self.images.path(i), how)
        if numbers.shape != (height, width):
            size = f"{numbers.shape[1]} x {numbers.shape[0]} px"
            raise Unreadable(Reason.LABELS, f"the mask is {size}, the image {width} x {height}")
        counted = numbers[numbers != IGNORE]
        if counted.size and int(counted.max()) >= len(self.classes):
            number = int(counted.max()) + self.reduce_zero_label
            raise Unreadable(Reason.LABELS, f"the mask has a {number}, there are {len(self.classes)} classes")
        return torch.from_numpy(numbers.astype(np.uint8))


def _reduced(numbers: NDArray[np.int64], reduce: bool) -> NDArray[np.int64]:
    return np.where((numbers == 0) | (numbers == IGNORE), IGNORE, numbers - 1) if reduce else numbers


def read_numbers(path: str, how: Decoding = AS_STORED) -> NDArray[np.int64]:
    """The values in a mask file: indices of a palette, or grey of 1, 8 or 16 bits.

    Raises:
        Unreadable: where it cannot be read, is in colour, or has values above 255.
    """
    with collected(), guarded(path, how) as file, Image.open(file, formats=("PNG",)) as im:
        check_pixels(im.height, im.width, how)
        check_memory(im.height * im.width * 28, how)  # Pillow's 4, its copies of 4, three arrays of 8 bytes
        if im.mode not in ("1", "L", "P", "I", "I;16"):
            raise Unreadable(Reason.LABELS, f"the mask is {im.mode}, where numbers of classes are wanted")
        numbers = np.asarray(im).astype(np.int64)
    if numbers.max() > IGNORE:
        raise Unreadable(Reason.LABELS, f"the mask has a {numbers.max()}; at most {IGNORE - 1} are possible")
    return numbers


def find_masks(root: str, part: str) -> tuple[Path, Path] | None:
    """Folders of a part's images and masks.

    root/images/{training,validation} and root/annotations/{training,validation}, also train and val, and
    masks for annotations; or root/{train,val}/{images,masks}.
    """
    places = [
        pair
        for name in _PARTS[part]
        for kind in _FOLDERS
        for pair in ((Path(root, "images", name), Path(root, kind, name)), _nested(Path(root, name), kind))
    ]
    return next((pair for pair in places if pair[0].is_dir() and pair[1].is_dir()), None)


def _nested(folder: Path, kind: str) -> tuple[Path, Path]:
    return folder / "images", folder / kind


def open_masks(root: str, part: str, options: MaskOptions = PLAIN) -> MaskFolder:
    """Images and masks of a part of a folder that `find_masks` knows.

    Classes are the lines of root/classes.txt, or ADE20K's objectInfo150.txt; where there is neither, they
    are numbered after a look at all training masks.

    Raises:
        LaminaError: where the folders are not there, an image has no mask, or classes cannot be told.
    """
    found = find_masks(root, part)
    if found is None:
        wanted = (
            f"images/{_PARTS[part][0]} and annotations/{_PARTS[part][0]}, or {part}/images and {part}/masks"
        )
        raise LaminaError(f"{printable(root)} has no {wanted}")
    images, masks = (str(folder) for folder in found)
    names = find_images(images).names
    if not names:
        raise LaminaError(f"no images in {printable(images)}")
    pairs = _paired(names, masks)
    reduce = options.reduce_zero_label
    if reduce is None:
        reduce = not Path(root, _NAME_FILES[0]).is_file() and Path(root, _NAME_FILES[1]).is_file()
    return MaskFolder(FileSource(images, names), masks, pairs, _classes(root, reduce), reduce)


def _paired(names: Sequence[str], masks: str) -> list[str]:
    """The mask of each image: the same path with another suffix."""
    there = {
        os.path.splitext(name)[0]: name for name in find_images(masks).names if name.endswith(_MASK_SUFFIXES)
    }
    stems = [os.path.splitext(name)[0] for name in names]
    missing = [stem for stem in stems if stem not in there]
    if missing:
        first = printable(os.path.join(masks, missing[0] + _MASK_SUFFIXES[0]))
        raise LaminaError(f"{len(missing)} of {len(names)} images have no mask; the first lacks {first}")
    if len(set(stems)) < len(stems):
        raise LaminaError(f"two images would share a mask in {printable(masks)}; give each a name of its own")
    return [there[stem] for stem in stems]


def _classes(root: str, reduce: bool) -> list[str]:
    file = next((Path(root, name) for name in _NAME_FILES if Path(root, name).is_file()), None)
    if file is None:
        return _numbered(root, reduce)
    try:
        lines = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise LaminaError(f"cannot read {printable(str(file))}: {error}") from None
    if file.name == _NAME_FILES[1]:  # Idx, Ratio, Train, Val, Stuff, Name in a table with tabs
        lines = [line.split("\t")[-1].strip() for line in lines[1:]]
    if not 1 <= len(lines) <= IGNORE:
        raise LaminaError(f"{printable(str(file))} names {len(lines)} classes; 1 to {IGNORE} are possible")
    return lines


def _numbered(root: str, reduce: bool) -> list[str]:
    """ "0", "1", ... as far as training masks go; one that cannot be read is passed over."""
    found = find_masks(root, "train")
    most = -1
    for name in [] if found is None else find_images(found[1]).names:
        try:
            numbers = _reduced(read_numbers(os.path.join(found[1], name)), reduce)  # type: ignore[index]
        except Unreadable:
            continue
        most = max(most, int(np.where(numbers == IGNORE, -1, numbers).max()))
    if most < 0:
        raise LaminaError(f"{printable(root)} has no classes.txt, and no training mask to tell classes by")
    return [str(k + reduce) for k in range(most + 1)]
