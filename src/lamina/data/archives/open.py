"""Archives and remote folders as sources: names, parts and classes of the images, by the rules of folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.archives.classes import classes_of, roles_by_name, roles_of
from lamina.data.archives.files import State, states_of
from lamina.data.archives.images import Images, ImagesBuilder
from lamina.data.archives.index import members_of
from lamina.data.archives.members import Members
from lamina.data.archives.progress import IndexProgress
from lamina.data.archives.shards import RemoteFolder, without_ending
from lamina.data.archives.spans import SpanSource
from lamina.data.archives.whole import Opened, WholeIndex
from lamina.data.columns import Numbers
from lamina.data.decode.unreadable import Unreadable
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
        return _put_together(named, split, (), _listed_images(named))
    states = states_of(named)
    kept = WholeIndex(named, states, split or "train")
    opened = kept.read()
    if opened is not None:
        return opened
    n_bytes = sum(state.size for state in states)
    progress, large = IndexProgress(len(named), n_bytes), n_bytes >= _WORTH_BYTES
    with kept.turn(progress.waits) if large else nullcontext():
        opened = kept.read()
        if opened is None:
            images = _all_images(named, states, large, progress)
            opened = _put_together(named, split, states, images)
            kept.write(opened)
    return opened


def _put_together(
    named: Sequence[str] | RemoteFolder,
    split: Split | None,
    states: Sequence[State],
    images: Images | PassedOver,
) -> Opened:
    if isinstance(images, PassedOver):
        why = "; ".join(images.notes()) or "nothing in it has an image's ending"
        raise LaminaError(f"no images in {_described(named)}: {why}")
    roles = roles_of(images)
    classes = classes_of(images, roles is not None)
    names, labels, spans = images.names, classes.labels if classes.names else None, images.spans
    notes = images.passed_over.notes()
    if roles is not None and split != "all":
        train, val = roles.those_in("train"), roles.those_in("val")
        notes = (part_note(len(train), len(val), len(images)), *notes)
        kept = val if split == "val" else train
        names, labels, spans = names.at(kept), None if labels is None else labels[kept], spans[kept]
    labelled = (names, None if labels is None else Numbers(labels), classes.names)
    source: Source
    if isinstance(named, RemoteFolder):
        files = spans[:, 0].tolist()
        source = RemoteFiles([named.files[k][0] for k in files], _states_there(named, files), *labelled)
    else:
        source = SpanSource(named, spans, *labelled, states=states)
    source.notes, source.no_labels = notes, classes.why_none
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


def _states_there(folder: RemoteFolder, files: Sequence[int]) -> list[tuple[int, str]]:
    try:
        return folder.states(files)
    except Unreadable as error:
        raise LaminaError(f"{printable(folder.url)} cannot be read: {printable(str(error))}") from None


def _listed_images(folder: RemoteFolder) -> Images | PassedOver:
    found = folder.images()
    building = ImagesBuilder()
    building.add("", 0, found)
    listed = building.result()
    if isinstance(listed, Images):
        listed.spans = listed.spans[:, 1:]  # `Place.first` is the file's number
    return listed


def _all_images(
    shards: Sequence[str], states: Sequence[State], large: bool, progress: IndexProgress
) -> Images | PassedOver:
    building = ImagesBuilder()
    own = _own_names(shards) if len(shards) > 1 else [""]  # of one, those of the folder it was made of
    for number, members in enumerate(_indices(shards, states, large, progress)):
        building.add(own[number], number, members)
    return building.result()


def _indices(
    shards: Sequence[str], states: Sequence[State], large: bool, progress: IndexProgress
) -> Iterator[Members]:
    remote = is_url(shards[0])

    def index(i: int) -> Members:
        return members_of(shards[i], states[i], remote or large, progress)

    return in_parallel(index, range(len(shards))) if remote else map(index, range(len(shards)))


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
