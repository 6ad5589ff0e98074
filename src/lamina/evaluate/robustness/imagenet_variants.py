"""ImageNet-C, -A, -R and -Sketch as they are published, and the classes in them among a classifier's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int64
from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.open import open_source
from lamina.data.sources import Source
from lamina.evaluate.robustness.corruptions.kinds import KINDS, SEVERITIES

Variant = Literal["imagenet-a", "imagenet-r", "imagenet-sketch"]
CLASSES: dict[str, int] = {"imagenet-a": 200, "imagenet-r": 200, "imagenet-sketch": 1000}
"""Number of classes of each published set."""
_FAMILIES = ("", "noise", "blur", "weather", "digital")


def open_imagenet_c(root: str | os.PathLike[str], kind: str, severity: int) -> Source:
    """One part of ImageNet-C: root/KIND/SEVERITY/WNID/*.JPEG, or root/FAMILY/KIND/... (noise, blur, ...).

    Its images are crops of 224 px: evaluate them with `eval_crop_share` 1, or they are cropped again.

    Raises:
        LaminaError: if it is not there, or has no classes.
    """
    place = _part(root, kind, severity)
    if place is None:
        wanted = printable(str(Path(root) / kind / str(severity)))
        raise LaminaError(f"there is no {wanted}; unpack ImageNet-C as ROOT/KIND/SEVERITY/WNID/*.JPEG")
    return _with_classes(place)


def imagenet_c_kinds(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Those of the fifteen kinds that are below `root`, in the published order.

    Raises:
        LaminaError: if none is, or one lacks a severity.
    """
    found = []
    for kind in KINDS:
        missing = [severity for severity in SEVERITIES if _part(root, kind, severity) is None]
        if missing and len(missing) < len(SEVERITIES):
            raise LaminaError(
                f"{printable(str(root))} has {kind} without severity {missing[0]}; unpack its archive whole"
            )
        found += [] if missing else [kind]
    if not found:
        raise LaminaError(f"{printable(str(root))} has no folder of ImageNet-C, such as {KINDS[0]}/1")
    return tuple(found)


def open_variant(root: str | os.PathLike[str], name: Variant) -> Source:
    """ImageNet-A (arXiv 1907.07174), -R (2006.16241) or -Sketch (1905.13549): root/WNID/*.jpg.

    Raises:
        LaminaError: if it is not there, or has not as many classes as were published: with fewer of them a
            classifier would have fewer to choose from.
    """
    source = _with_classes(Path(root))
    if (found := len(source.class_names)) != CLASSES[name]:
        raise LaminaError(
            f"{printable(str(root))} has {found} classes where {name} has {CLASSES[name]}; unpack it whole"
        )
    return source


def class_subset(of_classifier: Sequence[str], of_images: Sequence[str]) -> Int64[Tensor, "k"]:
    """Where the classes of images are among those of a classifier, in the images' order.

    `logits[:, subset].argmax(1)` then counts the images' classes, as their labels do, and no other class can
    be chosen: so the authors of ImageNet-A and -R evaluate.

    Raises:
        LaminaError: for a class that the classifier lacks, and where two of its own have one name.
    """
    place = {name: i for i, name in enumerate(of_classifier)}
    if len(place) < len(of_classifier):
        raise LaminaError("two classes of the classifier have one name; give each class a name of its own")
    if unknown := [name for name in of_images if name not in place]:
        raise LaminaError(
            f"the classifier lacks {len(unknown)} of the images' {len(of_images)} classes, such as "
            f"{printable(unknown[0])!r}; give images or names that fit its {len(place)}, such as "
            f"{printable(of_classifier[0])!r}"
        )
    return torch.tensor([place[name] for name in of_images], dtype=torch.int64)


def imagenet_wnids(n_classes: int = 1000) -> tuple[str, ...]:
    """WordNet ids of what timm's ImageNet classifiers with so many outputs tell apart, in their order.

    Raises:
        LaminaError: if timm knows no ImageNet of that size.
    """
    subset = infer_imagenet_subset({"num_classes": n_classes})
    if subset is None:
        raise LaminaError(f"timm knows no ImageNet of {n_classes} classes; give the classes' names")
    return tuple(ImageNetInfo(subset).label_names())  # type: ignore[no-untyped-call]


def _part(root: str | os.PathLike[str], kind: str, severity: int) -> Path | None:
    places = [Path(root).expanduser() / family / kind / str(severity) for family in _FAMILIES]
    return next((place for place in places if place.is_dir()), None)


def _with_classes(folder: Path) -> Source:
    source = open_source(folder, "all")
    if source.labels is None:
        name = printable(str(folder))
        raise LaminaError(
            f"{name} has no classes, or one alone ({source.no_labels}); it takes FOLDER/WNID/*.JPEG"
        )
    return source
