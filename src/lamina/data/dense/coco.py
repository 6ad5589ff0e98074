"""Objects from annotations in the COCO format: boxes, polygons, run lengths, crowds."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from lamina.core.batch import Objects
from lamina.core.errors import LaminaError
from lamina.core.records import parse_json
from lamina.core.text import printable
from lamina.data.columns import Names
from lamina.data.decode.decode import Decoded
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.coco_annotations import Annotation, by_image
from lamina.data.dense.sources import ObjectSource
from lamina.data.options import AS_STORED, Decoding
from lamina.data.part_names import Role, most_usual
from lamina.data.parts import folders_of
from lamina.data.sources import FileSource

_PREFIX = "instances_"
MOST_SOUGHT = 100
"""Images that are looked for before a folder is refused as another's."""
_Numbers = Mapping[str, Any]


class CocoImages(FileSource):
    """The images of an annotation file, which says how large they are."""

    def __init__(
        self,
        root: str,
        names: Sequence[str],
        sizes: Sequence[tuple[int, int]],
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(root, names, notes=notes)
        self.sizes = np.array(sizes, np.int32).reshape(-1, 2)

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i; raises `Unreadable`, also where it is not as large as the annotations say."""
        found = super().inspect(i, how)
        self.check_size(i, found.size)
        return found

    def check_size(self, i: int, size: tuple[int, int]) -> None:
        """Raises `Unreadable` unless image i is annotated at this height and width."""
        height, width = self.sizes[i].tolist()
        if size != (height, width):
            detail = f"{size[1]} x {size[0]} px, annotated as {width} x {height}"
            turned = " (turned by EXIF?)" if size == (width, height) else ""
            raise Unreadable(Reason.LABELS, detail + turned)


class CocoObjects(ObjectSource):
    """Objects in the order of the file's images, those without annotations among them.

    Labels count the categories by ascending id. Boxes are clipped to the image. `left_out` counts the
    annotations that cannot be used (`coco_annotations`). A mask is what the segmentation covers; without one
    it is the box, rounded outwards, and then `has_masks` is False.
    """

    images: CocoImages

    def __init__(
        self,
        images: CocoImages,
        classes: Sequence[str],
        annotations: Iterable[Sequence[Annotation]],
        left_out: Counter[str],
    ) -> None:
        self.images, self.classes, self.left_out = images, tuple(classes), left_out
        self.has_masks = True
        kept, self._shows = [], []
        for found in annotations:
            self.has_masks &= all(each["shape"] is not None for each in found)
            kept.append(json.dumps(found))
            self._shows.append(not all(each["crowd"] for each in found))
        self._kept = Names(kept)

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """Objects of image i; raises `Unreadable` where they do not fit it."""
        self.images.check_size(i, self.images.size(i, how))
        return self.annotated(i)

    def has_objects(self, i: int) -> bool:
        """Whether image i has an annotation that is no crowd, without a look at it."""
        return self._shows[i]

    def labels_content(self) -> bytes:
        """A digest of all annotations that are kept."""
        digest = hashlib.sha256()
        for i in range(len(self.images)):
            digest.update(self._kept[i].encode() + b"\0")
        return digest.digest()

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
        found = parse_json(Path(annotations).read_bytes())
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
    if not _any_there(opened.images):
        first = printable(opened.images.path(0))
        raise LaminaError(f"{file} lists {first}, which is not there, nor are the others; give their folder")
    if opened.has_masks and find_spec("faster_coco_eval") is None:
        raise LaminaError("masks in the COCO format need faster-coco-eval; pip install 'lamina[dense]'")
    return opened


def _any_there(images: CocoImages) -> bool:
    """Whether one of the images exists; at most `MOST_SOUGHT` of them are looked for, evenly spread."""
    n = min(len(images), MOST_SOUGHT)
    return any(os.path.lexists(images.path(k * len(images) // n)) for k in range(n))


def _open(found: Any, root: str) -> CocoObjects:
    """Raises KeyError, TypeError, ValueError or OverflowError where it is not as it should be."""
    categories, notes = _categories(found["categories"])
    label = {number: k for k, number in enumerate(sorted(categories))}
    images = _images(found["images"])
    sizes = {number: (int(each["height"]), int(each["width"])) for number, each in images.items()}
    left_out: Counter[str] = Counter()
    annotations = by_image(found["annotations"], sizes, label, left_out)
    names = [str(each["file_name"]) for each in images.values()]
    classes = [categories[number] for number in sorted(categories)]
    source = CocoImages(root, names, list(sizes.values()), notes)
    return CocoObjects(source, classes, annotations.values(), left_out)


def _categories(found: Any) -> tuple[dict[int, str], list[str]]:
    """Names by id, and a note on each id that has two: the first is taken."""
    names: dict[int, str] = {}
    notes = []
    for each in found:
        number, name = int(each["id"]), str(each["name"])
        if names.setdefault(number, name) != name:
            taken = f"{printable(names[number])!r} is taken"
            notes.append(f"category {number} is called {printable(name)!r} too; {taken}")
    return names, notes


def _images(found: Any) -> dict[int, _Numbers]:
    """Images by id; one that is listed twice counts once."""
    images: dict[int, _Numbers] = {}
    for each in found:
        first = images.setdefault(int(each["id"]), each)
        if first["file_name"] != each["file_name"]:
            raise ValueError(f"two images have the id {each['id']}")
    return images


def find_coco(root: str, part: Role) -> tuple[Path, Path] | None:
    """Annotations and images of a part: root/annotations/instances_PART*.json, and the folder PART* of that
    name in root or root/images. Names of parts are those that people use (`lamina.data.parts`).

    Raises:
        LaminaError: where several files could be meant, or the images are not there.
    """
    stems = (file.stem.removeprefix(_PREFIX) for file in Path(root, "annotations").glob(f"{_PREFIX}*.json"))
    names = most_usual(sorted(stems), part)
    if not names:
        return None
    files = [Path(root, "annotations", f"{_PREFIX}{name}.json") for name in names]
    if len(files) > 1:
        several = ", ".join(printable(file.name) for file in files)
        raise LaminaError(f"{printable(root)} has several annotations for {part} ({several}); give the pair")
    folders = [
        Path(place, folder)
        for place in (root, os.path.join(root, "images"))
        for folder in (names[0], *folders_of(place, part))
    ]
    found = next((folder for folder in folders if folder.is_dir()), None)
    if found is None:
        raise LaminaError(f"there is no folder {printable(str(folders[0]))} for {printable(files[0].name)}")
    return files[0], found


def _mask(shape: Any, box: Sequence[float], height: int, width: int) -> Bool[Tensor, "height width"]:
    if not shape:
        mask = torch.zeros(height, width, dtype=torch.bool)
        mask[math.floor(box[1]) : math.ceil(box[3]), math.floor(box[0]) : math.ceil(box[2])] = True
        return mask
    from faster_coco_eval.core import mask as codec

    try:
        decoded = codec.decode(codec.segmToRle(shape, width, height))
    except Exception as error:  # its C++ raises several kinds
        raise Unreadable(Reason.LABELS, f"a segmentation: {str(error).splitlines()[0]}") from None
    return torch.from_numpy(np.ascontiguousarray(decoded).reshape(height, width).astype(bool))
