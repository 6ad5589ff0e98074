"""Objects from annotations in the COCO format: boxes, polygons, run lengths, crowds."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from lamina.batch import Objects
from lamina.data.decode import Decoded, image_size
from lamina.data.files import Names, printable
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import FileSource
from lamina.data.unreadable import Reason, Unreadable
from lamina.errors import LaminaError

_Numbers = Mapping[str, Any]


class CocoImages(FileSource):
    """The images of an annotation file, which says how large they are."""

    def __init__(self, root: str, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__(root, names)
        self.sizes = np.array(sizes, np.int32).reshape(-1, 2)

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i; raises `Unreadable`, also where it is not as large as the annotations say."""
        found = super().inspect(i, how)
        self.check_size(i, (found.image.shape[1], found.image.shape[2]))
        return found

    def check_size(self, i: int, size: tuple[int, int]) -> None:
        """Raises `Unreadable` unless image i is annotated at this height and width."""
        height, width = self.sizes[i].tolist()
        if size != (height, width):
            detail = f"{size[1]} x {size[0]} px, annotated as {width} x {height}"
            turned = " (turned by EXIF?)" if size == (width, height) else ""
            raise Unreadable(Reason.LABELS, detail + turned)


class CocoObjects:
    """An `ObjectSource` in the order of the file's images, those without annotations among them.

    Labels count the categories by ascending id. Boxes are clipped to the image; `dropped` annotations have
    nothing left of theirs, or one that is no box. A mask is what the segmentation covers; an annotation
    without one has its box, rounded outwards, and then `has_masks` is False.
    """

    def __init__(
        self, images: CocoImages, classes: Sequence[str], annotations: Iterable[Sequence[_Numbers]]
    ) -> None:
        self.images, self.classes = images, tuple(classes)
        self.dropped, self.has_masks = 0, True
        kept, self._shows = [], []
        for i, found in enumerate(annotations):
            boxed = self._boxed(i, found)
            kept.append(json.dumps(boxed))
            self._shows.append(not all(each["crowd"] for each in boxed))
        self._kept = Names(kept)

    def _boxed(self, i: int, annotations: Sequence[_Numbers]) -> list[dict[str, Any]]:
        """What is kept of an image's annotations, boxes as clipped corners."""
        height, width = self.images.sizes[i].tolist()
        kept = []
        for found in annotations:
            box = _corners(found["bbox"], height, width)
            self.has_masks &= bool(found.get("segmentation"))
            self.dropped += box is None
            if box is not None:
                crowd, shape = bool(found.get("iscrowd")), found.get("segmentation")
                kept.append({"box": box, "label": found["label"], "crowd": crowd, "shape": shape})
        return kept

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """Objects of image i; raises `Unreadable` where they do not fit it."""
        self.images.check_size(i, image_size(self.images.path(i), how))
        return self.annotated(i)

    def has_objects(self, i: int) -> bool:
        """Whether image i has an annotation that is no crowd, without a look at it."""
        return self._shows[i]

    def annotated(self, i: int) -> Objects:
        """Objects of image i as they are annotated, without a look at the image; raises `Unreadable`."""
        height, width = self.images.sizes[i].tolist()
        kept = json.loads(self._kept[i])
        masks = [_mask(each["shape"], each["box"], height, width) for each in kept]
        return Objects(
            torch.tensor([each["box"] for each in kept], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([each["label"] for each in kept], dtype=torch.int64),
            torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool),
            torch.tensor([each["crowd"] for each in kept], dtype=torch.bool),
        )


def open_coco(annotations: str | os.PathLike[str], images: str | os.PathLike[str]) -> CocoObjects:
    """Objects from an annotation file (JSON) and the folder that its file names are relative to.

    Raises:
        LaminaError: where one is not there, or the file is no such file; it names what is missing.
    """
    file = printable(os.fspath(annotations))
    try:
        found = json.loads(Path(annotations).read_bytes())
    except OSError as error:
        raise LaminaError(f"cannot read the annotations {file}: {error.strerror}") from None
    except ValueError as error:
        raise LaminaError(f"{file} is no JSON ({error}); give COCO annotations") from None
    if not os.path.isdir(images):
        raise LaminaError(f"there is no folder {printable(os.fspath(images))} for the images of {file}")
    try:
        opened = _open(found, os.fspath(images))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        missing = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise LaminaError(f"{file} is not in the COCO format: {missing}") from None
    if not len(opened.images):
        raise LaminaError(f"{file} lists no images")
    if not os.path.lexists(opened.images.path(0)):
        raise LaminaError(f"{file} lists {printable(opened.images.path(0))}, which is not there")
    if opened.has_masks and find_spec("faster_coco_eval") is None:
        raise LaminaError("masks in the COCO format need faster-coco-eval; pip install 'lamina[dense]'")
    return opened


def _open(found: Any, root: str) -> CocoObjects:
    """Raises KeyError, TypeError, ValueError or OverflowError where it is not as it should be."""
    categories = {int(each["id"]): str(each["name"]) for each in found["categories"]}
    label = {number: k for k, number in enumerate(sorted(categories))}
    by_image: dict[int, list[_Numbers]] = {int(each["id"]): [] for each in found["images"]}
    if len(by_image) < len(found["images"]):
        raise ValueError("two images have the same id")
    for each in found["annotations"]:
        image, category = int(each["image_id"]), int(each["category_id"])
        if image not in by_image or category not in label:
            known = "images" if image not in by_image else "categories"
            raise ValueError(f"annotation {each.get('id')} is of none of its {known}")
        by_image[image].append({**each, "bbox": list(each["bbox"]), "label": label[category]})
    names = [str(each["file_name"]) for each in found["images"]]
    sizes = [(int(each["height"]), int(each["width"])) for each in found["images"]]
    classes = [categories[number] for number in sorted(categories)]
    return CocoObjects(CocoImages(root, names, sizes), classes, by_image.values())


def find_coco(root: str, part: str) -> tuple[Path, Path] | None:
    """Annotations and images of a part: root/annotations/instances_PART*.json, and root/PART* of that name.

    Raises:
        LaminaError: where several files could be meant, or the images are not there.
    """
    files = sorted(Path(root, "annotations").glob(f"instances_{part}*.json"))
    if not files:
        return None
    if len(files) > 1:
        names = ", ".join(printable(file.name) for file in files)
        raise LaminaError(f"{printable(root)} has several annotations for {part} ({names}); give the pair")
    name = files[0].stem.removeprefix("instances_")
    folders = [Path(root, name), Path(root, part), Path(root, "images", name), Path(root, "images", part)]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise LaminaError(f"there is no folder {printable(str(folders[0]))} for {printable(files[0].name)}")
    return files[0], found


def _corners(box: Sequence[Any], height: int, width: int) -> list[float] | None:
    """x1, y1, x2, y2 of a COCO box (x, y, width, height) within the image; None where nothing is left."""
    x, y, w, h = (float(number) for number in box)
    if not math.isfinite(x + y + w + h):
        return None
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    return [left, top, right, bottom] if right > left and bottom > top else None


def _mask(shape: Any, box: Sequence[float], height: int, width: int) -> Bool[Tensor, "height width"]:
    if not shape:
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[math.floor(box[1]) : math.ceil(box[3]), math.floor(box[0]) : math.ceil(box[2])] = True
        return mask
    _check_shape(shape, height, width)
    from faster_coco_eval.core import mask as codec

    try:
        decoded = codec.decode(codec.segmToRle(shape, width, height))
    except Exception as error:  # its C++ raises several kinds
        raise Unreadable(Reason.LABELS, f"a segmentation: {str(error).splitlines()[0]}") from None
    return torch.from_numpy(np.ascontiguousarray(decoded).reshape(height, width).astype(bool))


def _check_shape(shape: Any, height: int, width: int) -> None:
    """Refuse what the decoder takes for an image of any size, or never finishes."""
    if isinstance(shape, dict):
        if list(shape.get("size", [])) != [height, width]:
            raise Unreadable(Reason.LABELS, f"run lengths for {shape.get('size')}, not {[height, width]}")
        return
    if not isinstance(shape, list):
        raise Unreadable(Reason.LABELS, "a segmentation that is neither polygons nor run lengths")
    farthest = 2 * max(height, width)
    for polygon in shape:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise Unreadable(Reason.LABELS, "a polygon of less than three corners")
        if not all(isinstance(n, int | float) and -farthest <= n <= farthest for n in polygon):
            raise Unreadable(Reason.LABELS, "a polygon far outside of the image")
