"""Shards of tar as a source: names, parts and classes of the images, by the rules that folders have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.archives.index import members_of
from lamina.data.archives.shards import ENDING
from lamina.data.archives.spans import SpanSource
from lamina.data.archives.whole import Opened, WholeIndex
from lamina.data.found import PassedOver
from lamina.data.part_names import Role, part_note, roles_among, roles_of_all
from lamina.data.sources import Split


class _Image(NamedTuple):
    name: str
    """The member's name; of one of several shards, with the shard's path below their common folder before it,
    without its ending."""
    shard: int
    first: int
    size: int
    text: str
    """Of the .cls file beside it; "" where there is none."""
    inside: int
    """Where the member's own name begins in `name`."""


def open_shards(shards: Sequence[str], split: Split | None) -> tuple[SpanSource, bool]:
    """The images of tar files, in the order of their names; and whether there is a held-out part.

    Classes are what the .cls files beside the images say (webdataset), or else the folders that the images
    are in. Parts are told by the names of the folders that the shards are in, of the shards (train-000.tar
    and val-000.tar), or of the outermost folders in them, as `part_names.roles_among` tells. A source without
    a held-out part is given whole. Of many images all this is kept in lamina's cache (`whole.WholeIndex`).

    Raises:
        LaminaError: where an archive cannot be read, holds no images, or has no images of the part.
    """
    kept = WholeIndex(shards, split or "train")
    opened = kept.read()
    if opened is None:
        opened = _put_together(shards, split)
        kept.write(opened)
    return opened.source, opened.has_held_out


def _put_together(shards: Sequence[str], split: Split | None) -> Opened:
    images, passed_over = _all_images(shards)
    if not images:
        why = "; ".join(passed_over.notes()) or "no member has an image's ending"
        raise LaminaError(f"no images in {printable(shards[0])}{_more(shards)}: {why}")
    roles = _roles(images)
    own_part = roles is not None
    classes, why_none = _classes(images, roles)
    names = sorted(set(filter(None, classes))) if not why_none else []
    if names and all(name.isdecimal() for name in names):
        names.sort(key=int)
    wanted = [roles is None or split == "all" or roles[i] == ("val" if split == "val" else "train") for i in
              range(len(images))]  # fmt: skip
    kept = [i for i, use in enumerate(wanted) if use]
    number = {name: i for i, name in enumerate(names)}
    notes = [] if roles is None or split == "all" else [part_note(roles)]
    source = SpanSource(
        shards,
        np.array([images[i][1:4] for i in kept], np.int64).reshape(-1, 3),
        [images[i].name for i in kept],
        [number[classes[i]] for i in kept] if names else None,
        names,
        notes=(*notes, *passed_over.notes()),
        no_labels=why_none,
    )
    return Opened(source, own_part)


def _more(shards: Sequence[str]) -> str:
    return f" and {counted(len(shards) - 1, 'more tar file')}" if len(shards) > 1 else ""


def _all_images(shards: Sequence[str]) -> tuple[list[_Image], PassedOver]:
    around = os.path.commonpath([os.path.dirname(os.path.abspath(shard)) for shard in shards])
    passed_over, found = PassedOver(), list[_Image]()
    for number, shard in enumerate(shards):
        members = members_of(shard)
        passed_over.add(members.passed_over)
        own = ""  # one archive has the names of the folder it was made of
        if len(shards) > 1:
            own = os.path.relpath(os.path.abspath(shard), around)[: -len(ENDING)].replace(os.sep, "/") + "/"
        found += [
            _Image(own + name, number, first, size, text, len(own))
            for name, first, size, text in zip(
                members.names, members.firsts, members.sizes, members.labels, strict=True
            )
        ]
    found.sort(key=lambda image: image.name)
    return found, passed_over


def _roles(images: Sequence[_Image]) -> list[Role | None] | None:
    """The part of each image; None where there are no two parts."""
    shards = [image.name[: image.inside].rstrip("/") for image in images]
    levels = (
        [shard.rpartition("/")[0].partition("/")[0] for shard in shards],
        [shard.rpartition("/")[2] for shard in shards],
        [image.name[image.inside :].rpartition("/")[0].partition("/")[0] for image in images],
    )
    return roles_of_all(levels)


def _classes(images: Sequence[_Image], roles: Sequence[Role | None] | None) -> tuple[list[str], str]:
    """The class of each image, and why there are none, where there are none."""
    texts = [image.text for image in images]
    if any(texts):
        if all(texts):
            return (texts, "") if len(set(texts)) > 1 else (texts, "all .cls files say the same")
        without = images[texts.index("")].name
        n = texts.count("")
        return texts, f"{n} of {len(images)} images have no .cls file, such as {printable(without)}"
    folders = [_folder(image, roles is not None) for image in images]
    if "" in folders:
        return folders, f"{printable(images[folders.index('')].name)} lies in no class folder"
    if len(set(folders)) < 2:
        return folders, f"all images are in one folder, {printable(folders[0])}"
    return folders, ""


def _folder(image: _Image, has_parts: bool) -> str:
    """The outermost folder that a member is in, but for that of a part."""
    folders = image.name[image.inside :].split("/")[:-1]
    if has_parts and folders and roles_among([folders[0]]):
        folders = folders[1:]
    return folders[0] if folders else ""
