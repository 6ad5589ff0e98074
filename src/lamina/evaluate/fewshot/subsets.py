"""The training images of a label budget: balanced and drawn by a seed, or named by an official list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch

from lamina.core.errors import LaminaError
from lamina.core.rng import permutation
from lamina.core.text import printable
from lamina.data.digest import short_digest
from lamina.data.sources import Source, Subset


def draw_per_class(labels: Sequence[int], n: int, seed: int, draw: int = 0) -> list[int]:
    """`n` images of each class, all of a class that has no more, in ascending order; a function of (seed,
    draw).

    The draws of one number are nested: with a larger n the same images and some more.
    """
    if n < 1:
        raise LaminaError(f"{n} images of each class are none; give 1 or more")
    known = torch.as_tensor(labels)
    shuffled = permutation(seed, draw, len(known))
    chosen = [shuffled[known[shuffled] == label][:n] for label in sorted(set(labels))]
    return sorted(torch.cat(chosen).tolist())


def per_class_of(labels: Sequence[int], share: float) -> int:
    """The number of images of each class that make that share of all, at least 1; 13 for 1 % of ImageNet, as
    in SimCLR's list."""
    if not 0 < share < 1:
        raise LaminaError(f"a share of {share} is none; give a number between 0 and 1, such as 0.01")
    return max(1, round(share * len(labels) / len(set(labels))))


def listed(source: Source, file: Path) -> list[int]:
    """The images that an official list names, by the last part of their path (SimCLR's 1percent.txt and
    10percent.txt: n01440764_10043.JPEG on each line), in the source's order.

    Raises:
        LaminaError: where the list cannot be read, names an image that is not there, or gives a name that
            several images have.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LaminaError(f"the list {file} cannot be read: {error}") from None
    wanted = {PurePosixPath(line.strip()).name for line in lines if line.strip()}
    if not wanted:
        raise LaminaError(f"the list {file} names no image")
    names = [PurePosixPath(source.name(i)).name for i in range(len(source))]
    place = {name: i for i, name in enumerate(names)}
    if missing := sorted(wanted - place.keys()):
        raise LaminaError(
            f"{len(missing)} of {len(wanted)} images of the list {file} are not in the training images, "
            f"{printable(missing[0])} among them"
        )
    if twice := [name for name, n in Counter(names).items() if n > 1 and name in wanted]:
        raise LaminaError(
            f"several training images are called {printable(twice[0])}, so that the list {file} does not say "
            "which; give each a name of its own"
        )
    return sorted(place[name] for name in wanted)


class Draw(NamedTuple):
    """Some training images, the name of their label budget, and which draw of it they are."""

    budget: str
    number: int
    indices: list[int]
    listing: str = ""
    """For a list, the number of images that it names and a digest of their names; else ""."""


def draw_from_list(source: Source, file: Path) -> Draw:
    """The one draw of an official list, called as the file is; raises as `listed`."""
    indices = listed(source, file)
    names = "\n".join(source.name(i) for i in indices)
    return Draw(file.stem, 0, indices, f"list of {len(indices)} images, {short_digest(names)}")


def labelled_subset(source: Source, indices: Sequence[int]) -> Subset:
    """These images alone, in the same classes.

    Raises:
        LaminaError: where they are of one class.
    """
    subset = Subset(source, indices)
    if len(set(subset.labels or ())) < 2:
        raise LaminaError("these labels are of one class alone; take images of two classes or more")
    return subset
