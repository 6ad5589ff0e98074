"""Parts and classes of images in archives, by the rules that folders have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.core.text import printable
from lamina.data.archives.images import Codes, Images, Texts
from lamina.data.part_names import Role, roles_among, roles_of_all


class Roles(NamedTuple):
    """The parts of images."""

    known: list[Role | None]
    codes: Codes
    """Of each image the place of its part in `known`."""

    def those_in(self, *roles: Role) -> Int64[NDArray[np.int64], "n"]:
        """The images of some parts."""
        return np.flatnonzero(np.array([role in roles for role in self.known])[self.codes])


class Classes(NamedTuple):
    """The classes of some images."""

    names: list[str]
    """All classes in their order; none where there are no labels."""
    labels: Int64[NDArray[np.int64], "N"]
    """Of each image the number of its class."""
    why_none: str
    """Why there are none, where there are none."""


def roles_by_name(shards: Sequence[str]) -> list[Role | None] | None:
    """The part of each archive by the names of their folders or else their own; None where there are no two
    parts.

    Args:
        shards: of each archive the path below the common folder, without its ending.
    """
    return roles_of_all([list(map(_folder_of, shards)), list(map(_name_of, shards))])


def roles_of(images: Images) -> Roles | None:
    """The part of each image by the names of the archives' folders, of the archives, or of the outermost
    folders in them; None where there are no two parts."""
    for texts, name in (
        (images.archive, _folder_of),
        (images.archive, _name_of),
        (images.outer, str),
    ):
        used = texts.used()
        roles = roles_of_all([list(map(name, used))])
        if roles is not None:
            found = dict(zip(used, roles, strict=True))
            return Roles([found.get(text) for text in texts.known], texts.codes)
    return None


def _folder_of(shard: str) -> str:
    return shard.rpartition("/")[0].partition("/")[0]


def _name_of(shard: str) -> str:
    return shard.rpartition("/")[2]


def classes_of(images: Images, has_parts: bool) -> Classes:
    """The classes of images: what files beside them say, or else the folders that they are in."""
    texts, why_none = _class_names(images, has_parts)
    if why_none:
        return Classes([], np.empty(0, np.int64), why_none)
    names = sorted(set(texts.used()))
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    number = {name: i for i, name in enumerate(names)}
    numbers: NDArray[Any] = np.array([number.get(text, -1) for text in texts.known])
    return Classes(names, numbers[texts.codes], "")


def _class_names(images: Images, has_parts: bool) -> tuple[Texts, str]:
    """The class of each image, and why there are none, where there are none."""
    texts, without = images.labels, images.labels.without()
    if len(without) < len(images):
        if len(without):
            return texts, (
                f"{len(without)} of {len(images)} images have no label beside them (.cls, or .json with "
                f"label or cls), such as {printable(images.names[int(without[0])])}"
            )
        alone = len(texts.used()) == 1
        return texts, "the labels beside the images (.cls, .json) are all the same" if alone else ""
    folders = _folders(images) if has_parts else images.outer
    if len(without := folders.without()):
        return folders, f"{printable(images.names[int(without[0])])} lies in no class folder"
    used = set(folders.used())
    return folders, f"all images are in one folder, {printable(*used)}" if len(used) == 1 else ""


def _folders(images: Images) -> Texts:
    """The outermost folder that each member is in, but for that of a part."""
    outer, second = images.outer, images.second
    is_part = np.array([bool(name and roles_among([name])) for name in outer.known])[outer.codes]
    codes = np.where(is_part, second.codes + len(outer.known), outer.codes)
    return Texts([*outer.known, *second.known], codes)
