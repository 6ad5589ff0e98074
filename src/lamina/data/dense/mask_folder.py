"""Classes of pixels from folders of mask files, one beside each image, as ADE20K has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.mask_classes import NAME_FILES, class_names, read_numbers, reduced
from lamina.data.dense.sources import IGNORE, MapSource
from lamina.data.find_files import find_images
from lamina.data.options import AS_STORED, Decoding
from lamina.data.part_names import Role
from lamina.data.parts import folders_in, folders_of
from lamina.data.sources import EncodedSource, FileSource, Source

_FOLDERS = ("annotations", "masks", "labels")
_MASK_SUFFIXES = (".png", ".PNG")


@dataclass(frozen=True)
class MaskOptions:
    """What the numbers in mask files mean."""

    reduce_zero_label: bool | None = None
    """Treat 0 as no class and k as class k - 1, as ADE20K does. Unset: only where the folder has
    objectInfo150.txt."""


PLAIN = MaskOptions()
"""No option is given."""


class MaskFolder(MapSource):
    """Images and mask files: palette or grey PNG whose values are the classes.

    255 counts as nothing, and 0 too with `reduce_zero_label`. `masks` are in the order of the images.
    """

    def __init__(self, images: Source, masks: EncodedSource, classes: Sequence[str], reduce: bool) -> None:
        self.images, self.masks = images, masks
        self.classes, self.reduce_zero_label = tuple(classes), reduce

    def labels_content(self) -> bytes:
        """A digest of the mask files (`digest.files_digest`) and of how their numbers are meant."""
        return (self.masks.content(range(len(self.masks))) or b"") + bytes([self.reduce_zero_label])

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """Classes of image i, `IGNORE` where none; raises `Unreadable` where the mask does not fit.

        The image's size is read from its header. Nothing is resized, and a mask is never turned: where EXIF
        turns the image alone, their sizes differ.
        """
        numbers = reduced(read_numbers(self.masks.open(i), how), self.reduce_zero_label)
        height, width = self.images.size(i, how)
        if numbers.shape != (height, width):
            size = f"{numbers.shape[1]} x {numbers.shape[0]} px"
            raise Unreadable(Reason.LABELS, f"the mask is {size}, the image {width} x {height}")
        counted = numbers[numbers != IGNORE]
        if counted.size and int(counted.max()) >= len(self.classes):
            number = int(counted.max()) + self.reduce_zero_label
            raise Unreadable(Reason.LABELS, f"the mask has a {number}, there are {len(self.classes)} classes")
        return torch.from_numpy(numbers.astype(np.uint8))


def find_masks(root: str, part: Role) -> tuple[Path, Path] | None:
    """Folders of a part's images and masks, in any case.

    root/images/PART and root/annotations/PART, also masks or labels for annotations; or root/PART/images and
    root/PART/masks. Names of parts are those that people use (`lamina.data.parts`).
    """
    images, masks = _child(Path(root), ("images",)), _child(Path(root), _FOLDERS)
    pairs: list[tuple[Path | None, Path | None]] = []
    if images is not None and masks is not None:
        pairs = [(images / name, _child(masks, (name.lower(),))) for name in folders_of(str(images), part)]
    for name in folders_of(root, part):
        pairs.append((_child(Path(root, name), ("images",)), _child(Path(root, name), _FOLDERS)))
    return next(((image, mask) for image, mask in pairs if image is not None and mask is not None), None)


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """The folder in a folder that has the first of some names that one has, in any case."""
    there = {name.lower(): name for name in folders_in(str(folder))}
    return next((folder / there[name] for name in names if name in there), None)


def open_masks(root: str, part: Role, options: MaskOptions = PLAIN) -> MaskFolder:
    """Images and masks of a part of a folder that `find_masks` knows.

    Classes are the lines of root/classes.txt, or ADE20K's objectInfo150.txt; where there is neither, they
    are numbered after a look at all training masks.

    Raises:
        LaminaError: where the folders are not there, most images have no mask, or the classes are not known.
    """
    places = find_masks(root, part)
    if places is None:
        wanted = f"images/{part} and annotations/{part}, or {part}/images and {part}/masks"
        raise LaminaError(f"{printable(root)} has no {wanted}")
    images, masks = (str(folder) for folder in places)
    found = find_images(images)
    if not found.names:
        raise LaminaError(f"no images in {printable(images)}")
    pairs, notes = _paired(found.names, masks)
    reduce = options.reduce_zero_label
    if reduce is None:
        reduce = not Path(root, NAME_FILES[0]).is_file() and Path(root, NAME_FILES[1]).is_file()
    source = FileSource(images, list(pairs), notes=(*notes, *found.passed_over.notes()))
    return MaskFolder(source, FileSource(masks, list(pairs.values())), _classes(root, reduce), reduce)


def _classes(root: str, reduce: bool) -> list[str]:
    places = find_masks(root, "train")
    folder = "" if places is None else str(places[1])
    return class_names(root, FileSource(folder, find_images(folder).names if folder else ()), reduce)


def _paired(names: Sequence[str], masks: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The mask of each image, the same path with another suffix; and a note on images that have none."""
    found = find_images(masks).names
    there = {os.path.splitext(name)[0]: name for name in found if name.endswith(_MASK_SUFFIXES)}
    stems = {name: os.path.splitext(name)[0] for name in names}
    if len(set(stems.values())) < len(names):
        raise LaminaError(f"two images would share a mask in {printable(masks)}; give each a name of its own")
    pairs = {name: there[stem] for name, stem in stems.items() if stem in there}
    n = len(names) - len(pairs)
    if not n:
        return pairs, ()
    lacking = min(set(names) - set(pairs))
    first = printable(os.path.join(masks, stems[lacking] + _MASK_SUFFIXES[0]))
    if n > len(names) / 2:
        raise LaminaError(f"{n} of {len(names)} images have no mask; the first lacks {first}")
    return pairs, (
        f"{n} of {len(names)} images are left out, since they have no mask; the first lacks {first}",
    )
