"""Parts and classes of images in archives, by the rules that folders have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lamina.core.text import printable
from lamina.data.archives.members import Place
from lamina.data.part_names import Role, roles_among, roles_of_all


class ArchivedImage(NamedTuple):
    """An image in an archive."""

    name: str
    """The member's name; of one of several shards, with the shard's path below their common folder before it,
    without its ending."""
    number: int
    """Of its archive."""
    place: Place
    text: str
    """What a file beside it says of its class; "" where none does."""
    inside: int
    """Where the member's own name begins in `name`."""


class Classes(NamedTuple):
    """The classes of some images."""

    names: list[str]
    """All classes in their order; none where there are no labels."""
    labels: list[int]
    """Of each image the number of its class."""
    why_none: str
    """Why there are none, where there are none."""


def roles_by_name(shards: Sequence[str], folders: Sequence[str] = ()) -> list[Role | None] | None:
    """The part of each image by the names of the shards' folders, of the shards, or of the outermost folders
    in them; None where there are no two parts.

    Args:
        shards: of each image the path of its archive below the common folder, without its ending.
        folders: of each image the outermost folder in the archive.
    """
    levels = (
        [shard.rpartition("/")[0].partition("/")[0] for shard in shards],
        [shard.rpartition("/")[2] for shard in shards],
        folders,
    )
    return roles_of_all(levels)


def roles_of(images: Sequence[ArchivedImage]) -> list[Role | None] | None:
    """The part of each image; None where there are no two parts."""
    shards = [image.name[: image.inside].rstrip("/") for image in images]
    folders = [image.name[image.inside :].rpartition("/")[0].partition("/")[0] for image in images]
    return roles_by_name(shards, folders)


def classes_of(images: Sequence[ArchivedImage], roles: Sequence[Role | None] | None) -> Classes:
    """The classes of images: what files beside them say, or else the folders that they are in."""
    found, why_none = _class_names(images, roles)
    if why_none:
        return Classes([], [], why_none)
    names = sorted(set(found))
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    number = {name: i for i, name in enumerate(names)}
    return Classes(names, [number[name] for name in found], "")


def _class_names(
    images: Sequence[ArchivedImage], roles: Sequence[Role | None] | None
) -> tuple[list[str], str]:
    """The class of each image, and why there are none, where there are none."""
    texts = [image.text for image in images]
    if any(texts):
        if not all(texts):
            n, without = texts.count(""), images[texts.index("")].name
            return texts, (
                f"{n} of {len(images)} images have no label beside them (.cls, or .json with label or cls), "
                f"such as {printable(without)}"
            )
        return texts, "" if len(
            set(texts)
        ) > 1 else "the labels beside the images (.cls, .json) are all the same"
    folders = [_folder(image, roles is not None) for image in images]
    if "" in folders:
        return folders, f"{printable(images[folders.index('')].name)} lies in no class folder"
    if len(set(folders)) < 2:
        return folders, f"all images are in one folder, {printable(folders[0])}"
    return folders, ""


def _folder(image: ArchivedImage, has_parts: bool) -> str:
    """The outermost folder that a member is in, but for that of a part."""
    folders = image.name[image.inside :].split("/")[:-1]
    if has_parts and folders and roles_among([folders[0]]):
        folders = folders[1:]
    return folders[0] if folders else ""
