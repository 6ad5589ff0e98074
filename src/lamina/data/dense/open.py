"""Opening classes of pixels and objects by what they are called: a sample, a COCO root, a folder of masks."""

from __future__ import annotations

import os
from typing import Literal

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.dense.coco import find_coco, open_coco
from lamina.data.dense.mask_folder import PLAIN, MaskOptions, find_masks, open_masks
from lamina.data.dense.read_as import MapsReadAs, ObjectsReadAs
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.file_names import not_files
from lamina.data.reading import split_reading
from lamina.data.samples.catalog import is_sample, open_sample, sample_names

Part = Literal["train", "val"]
FilePath = str | os.PathLike[str]


def open_maps(data: FilePath, part: Part, options: MaskOptions = PLAIN) -> MapSource:
    """Classes of pixels of one part.

    `data` is `sample:doom`, perhaps with parameters (`sample:doom?train=300`), or a folder of images and
    masks: root/images/{training,validation} beside root/annotations/{training,validation} as in ADE20K, or
    root/{train,val}/{images,masks}. `options` are for folders. Behind either may stand how the images are
    read, such as `?scale=0:10000` (`lamina.data.reading`).

    Raises:
        LaminaError: if there is no such thing; it says what was looked for.
    """
    name, reading = split_reading(_path(data))
    maps = _maps(name, part, options)
    return maps if reading is None else MapsReadAs(maps, reading)


def _maps(data: str, part: Part, options: MaskOptions) -> MapSource:
    if is_sample(data):
        maps: MapSource = open_sample(data, part, "maps")
        return maps
    root = _folder(data)
    if find_masks(root, part) is None and find_coco(root, part) is not None:
        raise LaminaError(f"{printable(root)} has objects, but no masks of classes; give a folder of masks")
    return open_masks(root, part, options)


def open_objects(data: FilePath | tuple[FilePath, FilePath], part: Part) -> ObjectSource:
    """Objects of one part.

    `data` is `sample:doom`, perhaps with parameters; the root of a COCO-like data set,
    root/annotations/instances_{train,val}*.json beside root/{train,val}*/; either perhaps with how the images
    are read behind it, such as `?scale=0:10000` (`lamina.data.reading`); or annotations and images as a pair
    of paths, which is one part by itself.

    Raises:
        LaminaError: if there is no such thing; it says what was looked for.
    """
    if isinstance(data, tuple):
        return open_coco(*data)
    name, reading = split_reading(_path(data))
    objects = _objects(name, part)
    return objects if reading is None else ObjectsReadAs(objects, reading)


def _objects(data: str, part: Part) -> ObjectSource:
    if is_sample(data):
        objects: ObjectSource = open_sample(data, part, "objects")
        return objects
    root = _folder(data)
    found = find_coco(root, part)
    if found is None:
        raise LaminaError(
            f"{printable(root)} has no annotations/instances_{part}*.json, as COCO has; "
            f"{sample_names('objects')} has objects"
        )
    return open_coco(*found)


def _path(data: FilePath) -> str:
    try:
        return os.path.expanduser(os.fspath(data))
    except TypeError:
        raise not_files(
            data, "save arrays and datasets as images first: PIL.Image.fromarray(array).save('0.png')"
        ) from None


def _folder(root: str) -> str:
    if not os.path.isdir(root):
        raise LaminaError(f"there is no folder {printable(root)}; give one, or {sample_names('maps')}")
    return root
