"""The samples, data sets that come with packages: a row each, which opening, help texts and errors read.

A new sample is a file beside this one and a row here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from lamina.core.errors import LaminaError
from lamina.core.text import printable

PREFIX = "sample:"
Kind = Literal["images", "maps", "objects"]
Part = Literal["train", "val"]


@dataclass(frozen=True)
class SampleRow:
    """One sample; functions are named by their dotted paths and imported when a sample is opened."""

    name: str
    """The word after `sample:`."""
    help: str
    """What the images are: their number, size and classes."""
    example: str
    """Parameters, as an example for the documentation."""
    options: str
    """The dataclass of the parameters, with their defaults and what they mean."""
    images: str
    """The function that opens the images; like the others it takes parameters (`crop=64&grey=1`) and a
    part."""
    maps: str | None = None
    """The function that opens a class for each pixel, where the sample has them."""
    objects: str | None = None
    """The function that opens objects with boxes and masks, where the sample has them."""

    @property
    def spec(self) -> str:
        """What a user types."""
        return f"{PREFIX}{self.name}"


SAMPLES = (
    SampleRow(
        "photos",
        "Crops of 17 photographs that the packages scikit-image and scikit-learn contain; a class for each "
        "photograph.",
        "crop=32&most=100",
        "lamina.data.samples.photos.PhotosOptions",
        "lamina.data.samples.photos.open_photos",
    ),
    SampleRow(
        "fashion-mnist",
        "70,000 grey pictures of clothes, 28 x 28 px, in 10 classes; from Debian's package, or downloaded.",
        "most=2000",
        "lamina.data.samples.fashion_mnist.FashionOptions",
        "lamina.data.samples.fashion_mnist.open_fashion_mnist",
    ),
    SampleRow(
        "doom",
        "3,600 frames of the free Freedoom maps, 112 x 160 px, with a class for each pixel, objects and "
        "depth; rendered once, with the extra doom.",
        "train=1000&val=200",
        "lamina.data.samples.doom.sources.DoomOptions",
        "lamina.data.samples.doom.sources.open_doom",
        "lamina.data.samples.doom.sources.open_doom_maps",
        "lamina.data.samples.doom.sources.open_doom_objects",
    ),
)


def is_sample(data: object) -> bool:
    """Whether `data` is the name of a sample."""
    return isinstance(data, str) and data.startswith(PREFIX)


def sample_names(kind: Kind = "images") -> str:
    """The samples that have this, for sentences: "sample:photos, sample:fashion-mnist or sample:doom"."""
    *first, last = [row.spec for row in SAMPLES if getattr(row, kind) is not None]
    return f"{', '.join(first)} or {last}" if first else last


def open_sample(data: str, split: str | None, kind: Kind = "images") -> Any:
    """What a sample has of this kind; `data` is `sample:NAME` or `sample:NAME?parameter=value&...`.

    Raises:
        LaminaError: where there is no such sample, it has nothing of this kind, or as its own function.
    """
    spec, _, query = data.partition("?")
    row = next((row for row in SAMPLES if row.spec == spec), None)
    if row is None:
        raise LaminaError(f"there is no {printable(data)}; take {sample_names(kind)}")
    path: str | None = getattr(row, kind)
    if path is None:
        what = {"maps": "no class for each pixel", "objects": "no objects"}[kind]
        raise LaminaError(f"{row.spec} has {what}; take {sample_names(kind)}")
    opened: Callable[[str, str | None], Any] = at_path(path)
    return opened(query, split)


def at_path(path: str) -> Any:
    """The function or class of that dotted path, imported now."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def parts_of(split: str | None) -> tuple[Part, ...]:
    """The parts of a sample that a split names: None is the training part, "all" is both."""
    if split == "all":
        return ("train", "val")
    return ("val",) if split == "val" else ("train",)
