"""A folder of images as a source: its parts, and the classes that its folders are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.columns import Numbers
from lamina.data.find_files import find_images
from lamina.data.found import Found
from lamina.data.part_names import loose_role
from lamina.data.parts import Parts, find_parts, maybe_parts
from lamina.data.sources import FileSource, Source, Split, Subset

_WHOLE = Parts(train=("",), val=())
"""A folder without parts."""


def open_folder(root: str, split: Split | None, val_share: float, split_seed: int) -> Source:
    """The images of a folder, as `open_source` describes; perhaps none.

    Raises:
        LaminaError: where there is no such part, or the folder cannot be listed.
    """
    parts = find_parts(root) or _WHOLE
    wanted = {None: parts.train, "train": parts.train, "val": parts.val or parts.train, "all": ("",)}[split]
    if not wanted:
        alone = printable(os.path.join(root, parts.val[0]))
        raise LaminaError(
            f"{printable(root)} has images in a held-out part alone; give {alone} itself to train on them, "
            "or put training images beside it"
        )
    source = _labelled(root, _search(root, wanted), parts, split)
    if split in (None, "all") or parts.val or not len(source):
        return source
    return take_part(source, split == "val", val_share, split_seed)


def _search(root: str, folders: Sequence[str]) -> Found:
    """The images of some folders below the root."""
    whole = Found()
    for folder in folders:
        found = find_images(root, folder)
        whole.names += found.names
        whole.links += found.links
        whole.passed_over.add(found.passed_over)
    whole.names.sort()
    return whole


def _labelled(root: str, found: Found, parts: Parts, split: Split | None) -> FileSource:
    """Labels where each image is in a class folder, and there are at least two classes."""
    tops = (*parts.train, *parts.val)
    if split == "all":
        tops += tuple(folder for folder in parts.others if loose_role(os.path.basename(folder)))
    classes = {name: _class_of(name, tops) for name in found.names}
    linked, n_unused = _of_other_classes(found, classes, tops)
    known = {*classes.values(), *linked.values()}
    if split == "val" and parts.val:  # numbered as in training
        known |= _classes_in(_search(root, parts.train), tops) - {None}
    unlabelled = None in known or len(known) < 2
    notes = [] if split == "all" or parts is _WHOLE else [*parts.notes()]
    if parts is _WHOLE and (doubtful := maybe_parts(root)):
        notes.append(_not_parts(doubtful, "one data set" if unlabelled else "classes"))
    if unlabelled:
        found.passed_over.repeats += len(found.links)
        notes += found.passed_over.notes()
        return FileSource(root, found.names, notes=notes, no_labels=_why_unlabelled(classes))
    number = {name: i for i, name in enumerate(sorted(filter(None, known)))}
    names = sorted([*found.names, *linked])
    found.passed_over.repeats += n_unused
    if linked:
        count = f"{len(linked)} ({printable(min(linked))}, for one)"
        notes.append(f"images that count in a further class too, where links put them: {count}")
    if split is None and not parts.val:
        notes.insert(0, _no_part_held_out(root, len(names)))
    labels = [number[c] for c in map((classes | linked).__getitem__, names) if c is not None]
    return FileSource(root, names, labels, list(number), notes=[*notes, *found.passed_over.notes()])


def _classes_in(found: Found, tops: Sequence[str]) -> set[str | None]:
    """Classes of the images found, those that links alone give them included."""
    classes = {name: _class_of(name, tops) for name in found.names}
    return {*classes.values(), *_of_other_classes(found, classes, tops)[0].values()}


def _not_parts(folders: Sequence[str], what: str) -> str:
    """The note on folders that are named like parts and may be none."""
    return (
        f"{' and '.join(map(printable, folders))} {'is' if len(folders) == 1 else 'are'} taken for {what}, "
        "not for a training or a held-out part; if they are parts, name them train/ and val/, with no other "
        "images beside them"
    )


def _class_of(name: str, tops: Sequence[str]) -> str | None:
    """The folder below that of the part; None for an image that lies in no such folder."""
    for top in tops:
        if not top or name.startswith(top + os.sep):
            folder, inside, _ = name[len(top) :].lstrip(os.sep).partition(os.sep)
            return folder if inside else None
    return None


def _of_other_classes(
    found: Found, classes: Mapping[str, str | None], tops: Sequence[str]
) -> tuple[dict[str, str], int]:
    """Paths by links to images of another class's folder, one for each class, with that class; and how many
    links give none."""
    seen, linked, n_unused = set[tuple[str, str]](), dict[str, str](), 0
    for link, target in sorted(found.links):
        n_before = len(linked)
        for name in [target] if target in classes else found.below(target):
            path = link + name.removeprefix(target)
            other = _class_of(path, tops)
            if other is not None and other != classes[name] and (name, other) not in seen:
                seen.add((name, other))
                linked[path] = other
        n_unused += len(linked) == n_before
    return linked, n_unused


def _why_unlabelled(classes: Mapping[str, str | None]) -> str:
    outside = [name for name, folder in classes.items() if folder is None]
    if outside:
        more = f", and {len(outside) - 1} more" if len(outside) > 1 else ""
        return f"{printable(outside[0])} lies in no class folder{more}"
    return f"all images are in one folder, {printable(next(iter(classes.values()), None) or '')}"


def _no_part_held_out(root: str, n: int) -> str:
    """The note for those who will evaluate the trained encoder on the same folder."""
    return (
        f"{printable(_named(root))} has classes and no held-out part: all {n} images are trained on, "
        "those included that an evaluation on the same folder tests on; "
        "train/ and val/ folders keep them apart"
    )


def _named(root: str) -> str:
    """The folder as it is given; its own name where that says nothing ("." and "..")."""
    return os.path.realpath(root) if os.path.normpath(root).strip("." + os.sep) == "" else root


def take_part(source: Source, validation: bool, val_share: float, seed: int) -> Subset:
    """One side of the split that `open_source` describes; a class of two or more has both sides."""
    order = _by_hash(source, f"{seed}/".encode())
    labels = np.zeros(len(source), np.int32) if source.labels is None else source.labels.values
    _, counts = np.unique(labels, return_counts=True)
    held_out = np.zeros(len(source), bool)
    by_class = order[np.argsort(labels[order], kind="stable")]
    for first, n in zip(np.cumsum(counts) - counts, counts, strict=True):
        held_out[by_class[first : first + _validation_count(int(n), val_share)]] = True
    keep = np.flatnonzero(held_out if validation else ~held_out)
    if not len(keep):
        raise LaminaError(
            "too few images for a validation part; give more, or root/train and root/val folders"
        )
    return Subset(source, Numbers(keep))


def _by_hash(source: Source, before: bytes) -> Int64[NDArray[np.int64], "N"]:
    """The images in the order of the SHA-256 of `before` and their names, then of their indices."""

    def sha256(i: int) -> bytes:
        return hashlib.sha256(before + os.fsencode(source.name(i))).digest()

    heads = b"".join(sha256(i)[:8] for i in range(len(source)))
    keys = np.frombuffer(heads, ">u8").astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    for run in np.split(same, np.flatnonzero(np.diff(same) > 1) + 1) if len(same) else ():
        tied = order[run[0] : run[-1] + 2]
        order[run[0] : run[-1] + 2] = sorted(tied.tolist(), key=sha256)
    return order


def _validation_count(n: int, share: float) -> int:
    return min(n - 1, max(1, round(n * share)))
