"""A dataset of somebody's own, as torch has them, as a source: images by number, labels where there are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from torch.utils.data import Subset as TorchSubset

from lamina.core.errors import LaminaError
from lamina.core.text import counted
from lamina.data.decode.arrays import Pixels
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import Decoded
from lamina.data.decode.limits import check_pixels
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.decode.values import to_pixels
from lamina.data.options import AS_STORED, Decoding
from lamina.data.sources import Source

_IMAGE_KEYS = ("image", "img", "pixel_values")
_MODES = {"1": "L", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "La": "LA", "PA": "RGBA", "RGBa": "RGBA"}
_SAMPLED = 64
"""Images that a digest of the content looks at: the dataset has to compute each."""


def is_dataset(data: object) -> bool:
    """Whether `data` is a dataset: torch's, or another object with numbered items, such as one of Hugging
    Face's; not a list, a table by names or an array."""
    if isinstance(data, Dataset):
        return True
    if isinstance(data, str | bytes | Sequence | Mapping | np.ndarray | Tensor) or hasattr(
        data, "__fspath__"
    ):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


class DatasetSource(Source):
    """The images of a dataset with `__len__` and `__getitem__`.

    An item is an image, a tuple or list whose first element is one, or a mapping with one under "image". An
    image is one of Pillow's, an array (H, W) or (H, W, C), or a tensor (C, H, W): uint8, uint16, or floats
    within [0, 1]. Labels are what `dataset.targets` (torchvision) or the column "label" (Hugging Face) says,
    with the names in `dataset.classes` or of that column; items are not read for them.

    Raises:
        LaminaError: for a dataset without numbered items or without any, or whose first item is no image.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise LaminaError(
                f"{type(dataset).__name__} has no numbered items, and a run that goes on has to find any "
                "image again; give a dataset with __len__ and __getitem__"
            )
        n = len(dataset)
        if not n:
            raise LaminaError(f"the {type(dataset).__name__} has no items")
        labels, class_names = _labels(dataset, n)
        digits = len(str(n - 1))
        super().__init__(
            [f"{i:0{digits}d}" for i in range(n)],
            labels,
            class_names,
            no_labels=""
            if labels is not None
            else "the dataset has no `targets` with a number for each image",
        )
        self.dataset = dataset
        self.notes = self._first_item()

    def _first_item(self) -> tuple[str, ...]:
        """Look at the first image, twice; gives what is worth knowing."""
        try:
            same = torch.equal(self.read(0), self.read(0))
        except Unreadable as error:
            name = type(self.dataset).__name__
            raise LaminaError(
                f"the first item of the {name} is no image that can be used ({error}); give images of "
                "Pillow, or arrays and tensors of uint8 or of floats from 0 to 1, not normalised"
            ) from None
        except RuntimeError:
            same = False
        if same:
            return ()
        return (
            "the dataset changes its images at random, so that a run that goes on differs from one that was "
            "not interrupted; leave its transforms out: lamina crops, flips and changes colours itself",
        )

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Image i; raises `Unreadable` where the dataset raises, or gives no image."""
        try:
            item = self.dataset[i]
        except Exception as error:  # whatever a dataset of somebody's own raises
            first = (str(error).splitlines() or [""])[0]
            raise Unreadable(Reason.BROKEN, f"{type(error).__name__}: {first}"[:200]) from None
        found = _image(item, how)
        check_pixels(found.image.shape[1], found.image.shape[2], how)
        image = fit_channels(found.image, how.in_chans, found.alpha, how.alpha_background)
        return Decoded(image, "dataset", str(image.dtype).removeprefix("torch."), notes=found.notes)

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the pixels of up to 64 of the images, evenly spread."""
        chosen = sorted({indices[k * len(indices) // _SAMPLED] for k in range(_SAMPLED)} if indices else ())
        digest = hashlib.sha256()
        for i in chosen:
            try:
                image = self.read(i)
            except Unreadable:
                digest.update(b"unreadable ")
            else:
                digest.update(f"{tuple(image.shape)} {image.dtype} ".encode())
                digest.update(image.contiguous().numpy().tobytes())
        return digest.digest()


def _image(item: Any, how: Decoding) -> Pixels:
    """The image of an item, in its own range."""
    if isinstance(item, Mapping):
        item = next((item[key] for key in _IMAGE_KEYS if key in item), None)
    elif isinstance(item, tuple | list) and item:
        item = item[0]
    if isinstance(item, Image.Image):
        return _from_pillow(item, how)
    if isinstance(item, Tensor):
        array = item.detach().cpu().numpy()
        return to_pixels(np.moveaxis(array, 0, -1) if array.ndim == 3 else array, how)
    if isinstance(item, np.ndarray) and item.ndim in (2, 3):
        channels_first = item.ndim == 3 and item.shape[0] < item.shape[2]
        return to_pixels(np.moveaxis(item, 0, -1) if channels_first else item, how)
    raise Unreadable(Reason.PIXEL_TYPE, f"a {type(item).__name__} in place of an image")


def _from_pillow(image: Image.Image, how: Decoding) -> Pixels:
    mode = (
        "RGBA" if image.mode == "P" and "transparency" in image.info else _MODES.get(image.mode, image.mode)
    )
    mode = "RGB" if mode == "P" else mode
    array = np.array(image if image.mode == mode else image.convert(mode))
    return to_pixels(array, how, alpha=mode in ("LA", "RGBA"))


def _labels(dataset: Any, n: int) -> tuple[list[int] | None, tuple[str, ...]]:
    """A class for each item, and the names of the classes; None where the dataset has none."""
    if isinstance(dataset, TorchSubset):
        labels, names = _labels(dataset.dataset, len(dataset.dataset))  # type: ignore[arg-type]
        return (None if labels is None else [labels[i] for i in dataset.indices]), names
    feature = (
        (getattr(dataset, "features", None) or {}).get("label") if hasattr(dataset, "features") else None
    )
    targets = dataset["label"] if feature is not None else getattr(dataset, "targets", None)
    if targets is None:
        return None, ()
    values = np.asarray(targets)
    if values.ndim != 1 or len(values) != n or values.dtype.kind not in "iu":
        return None, ()
    if int(values.min()) < 0:
        raise LaminaError(
            f"{counted(int((values < 0).sum()), 'label')} of the {type(dataset).__name__} are below 0; leave "
            "these items out, or give the dataset no labels"
        )
    known = getattr(feature, "names", None) or getattr(dataset, "classes", None) or ()
    highest = int(values.max())
    names = tuple(map(str, known)) if len(known) > highest else tuple(map(str, range(highest + 1)))
    return values.tolist(), names
