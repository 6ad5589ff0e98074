"""Archives and remote folders as sources: names, parts and classes of the images, by the rules of folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.archives.classes import ArchivedImage, classes_of, roles_by_name, roles_of
from lamina.data.archives.files import State, states_of
from lamina.data.archives.index import members_of
from lamina.data.archives.members import Members
from lamina.data.archives.progress import IndexProgress
from lamina.data.archives.shards import RemoteFolder, without_ending
from lamina.data.archives.spans import SpanSource
from lamina.data.archives.whole import Opened, WholeIndex
from lamina.data.found import PassedOver
from lamina.data.part_names import part_note
from lamina.data.remote.folder import RemoteFiles
from lamina.data.remote.requests import in_parallel
from lamina.data.remote.urls import is_url, path_of
from lamina.data.sources import Source, Split

_WORTH_BYTES = 1 << 26
"""Size of all archives of a source from which on their indices are kept: what is smaller is walked through in
no time. At a remote they always are."""


def open_archives(named: Sequence[str] | RemoteFolder, split: Split | None) -> Opened:
    """The images of archives, or of a folder at a remote, in the order of their names; and whether there is a
    held-out part.

    Classes are what the files beside the images in an archive say (webdataset), or else the folders that the
    images are in. Parts are told by the names of the folders that the shards are in, of the shards
    (train-000.tar and val-000.tar), or of the outermost folders in them. A source without a held-out part is
    given whole. Of many images in archives all this is kept in lamina's cache (`whole.WholeIndex`).

    Raises:
        LaminaError: where an archive cannot be read, holds no images, or has no images of the part.
    """
    if isinstance(named, RemoteFolder):
        images, states, passed_over = _listed_images(named)
        return _put_together(named, split, images, states, passed_over)
    states = states_of(named)
    kept = WholeIndex(named, states, split or "train")
    opened = kept.read()
    if opened is None:
        images, passed_over = _all_images(named, states)
        opened = _put_together(named, split, images, states, passed_over)
        kept.write(opened)
    return opened


def _put_together(
    named: Sequence[str] | RemoteFolder,
    split: Split | None,
    images: Sequence[ArchivedImage],
    states: Sequence[State],
    passed_over: PassedOver,
) -> Opened:
    if not images:
        why = "; ".join(passed_over.notes()) or "nothing in it has an image's ending"
        raise LaminaError(f"no images in {_described(named)}: {why}")
    roles = roles_of(images)
    classes = classes_of(images, roles)
    wanted = "val" if split == "val" else "train"
    kept = [i for i in range(len(images)) if roles is None or split == "all" or roles[i] == wanted]
    labelled = (
        [images[i].name for i in kept],
        [classes.labels[i] for i in kept] if classes.names else None,
        classes.names,
    )
    notes = [] if roles is None or split == "all" else [part_note(roles)]
    source: Source
    if isinstance(named, RemoteFolder):
        files = [images[i].number for i in kept]
        source = RemoteFiles([named.files[k][0] for k in files], [states[k] for k in files], *labelled)
    else:
        places = [(images[i].number, *images[i].place) for i in kept]
        source = SpanSource(
            named, np.array(places, np.int64).reshape(len(kept), -1), *labelled, states=states
        )
    source.notes, source.no_labels = (*notes, *passed_over.notes()), classes.why_none
    return Opened(source, roles is not None)


def have_held_out(named: Sequence[str] | RemoteFolder) -> bool:
    """Whether there is a held-out part: by the names of the archives, where these tell, or else by the names
    in them."""
    if not isinstance(named, RemoteFolder) and roles_by_name(_own_names(named)) is not None:
        return True
    return open_archives(named, None).has_held_out


def _described(named: Sequence[str] | RemoteFolder) -> str:
    if isinstance(named, RemoteFolder):
        return printable(named.url)
    return printable(named[0]) + (f" and {counted(len(named) - 1, 'more archive')}" if len(named) > 1 else "")


def _listed_images(folder: RemoteFolder) -> tuple[list[ArchivedImage], list[State], PassedOver]:
    found = folder.images()
    images = [
        ArchivedImage(name, place.first, place, "", 0)
        for name, place in zip(found.names, found.places, strict=True)
    ]
    images.sort(key=lambda image: image.name)
    return images, [State(*folder.state(k)) for k in range(len(folder.files))], found.passed_over


def _all_images(shards: Sequence[str], states: Sequence[State]) -> tuple[list[ArchivedImage], PassedOver]:
    passed_over, found = PassedOver(), list[ArchivedImage]()
    for number, (own, members) in enumerate(zip(_own_names(shards), _indices(shards, states), strict=True)):
        passed_over.add(members.passed_over)
        before = (
            f"{own}/" if len(shards) > 1 else ""
        )  # one archive has the names of the folder it was made of
        found += [
            ArchivedImage(before + name, number, place, text, len(before))
            for name, place, text in zip(members.names, members.places, members.labels, strict=True)
        ]
    found.sort(key=lambda image: image.name)
    return found, passed_over


def _indices(shards: Sequence[str], states: Sequence[State]) -> list[Members]:
    n_bytes = sum(state.size for state in states)
    progress = IndexProgress(len(shards), n_bytes)
    remote = is_url(shards[0])

    def index(i: int) -> Members:
        return members_of(shards[i], states[i], remote or n_bytes >= _WORTH_BYTES, progress)

    return in_parallel(index, range(len(shards))) if remote else [index(i) for i in range(len(shards))]


def _own_names(shards: Sequence[str]) -> list[str]:
    """The path of each archive below their common folder, with "/" between folders, and without its ending
    unless that is needed to tell them apart."""
    paths = (
        list(shards) if is_url(shards[0]) else [os.path.abspath(path).replace(os.sep, "/") for path in shards]
    )
    folders = [path.split("/")[:-1] for path in paths]
    levels = takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    common = len(list(levels))
    names = ["/".join(without_ending(path).split("/")[common:]) for path in paths]
    if len(set(names)) < len(names):  # a.tar beside a.zip
        names = ["/".join(path_of(path).split("/")[common:]) for path in paths]
    return names
