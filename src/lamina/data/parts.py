"""The parts of a data set by the names of its folders: training, held out, unlabelled."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.core.text import printable
from lamina.data.dicom_files import is_image_file
from lamina.data.outputs import is_output
from lamina.data.part_names import (
    Role,
    goes_without_saying,
    loose_role,
    rank,
    role_of,
    roles_among,
    usual_first,
)

_DEEPEST = 4
"""Folders that hold nothing but one folder, as unpacked archives do, are looked through so far."""


def folders_in(folder: str) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted; none where it cannot be listed."""
    return _level(folder).folders


def folders_of(folder: str, role: Role) -> list[str]:
    """Names of the folders in a folder that are such a part; "val" goes before "test"."""
    return sorted(_level(folder).of(role), key=lambda name: (rank(name), name))


@dataclass(frozen=True)
class Parts:
    """Folders of the parts, as paths below the root."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Folders with images that are in neither part."""
    loose: str | None = None
    """The first of the images beside the folders of the parts."""

    def notes(self) -> tuple[str, ...]:
        """What is which part, and what is in none; nothing where that goes without saying."""
        unused = [f"{printable(folder)}/" for folder in self.others]
        unused += [f"images beside the folders ({printable(self.loose)})"] if self.loose else []
        left = (f"not used: {', '.join(unused)}; give a folder's own path to use it",) if unused else ()
        named = [os.path.basename(folder) for folder in (*self.train, *self.val)]
        usual = len(named) == 2 and goes_without_saying(named)
        return left if usual and not left else (self._roles(), *left)

    def _roles(self) -> str:
        if not self.train:
            return f"{_shown(self.val)} is a held-out part; there is no training part beside it"
        if not self.val:
            return (
                f"{_shown(self.train)} is the training part; there is no held-out part beside it, so where "
                "one is needed a fifth of the images is held out"
            )
        return f"the training part is {_shown(self.train)}, the held-out part {_shown(self.val)}"


def find_parts(root: str) -> Parts | None:
    """The parts of a data set; None where its folders are none, and so may be classes.

    Folders are parts where one is named as a training part and another as a held-out one, in any case, as
    `roles_among` tells; or where no other folder has images ("train" alone, or with "test_stg1"). A folder
    that holds all images is looked into.
    """
    base, level = "", _level(root)
    for _ in range(_DEEPEST):
        parts = _two_parts(root, base, level)
        if parts is not None:
            return parts
        only = _only_folder(os.path.join(root, base), level)
        if only is None:
            break
        inside = os.path.join(base, only)
        deeper = _level(os.path.join(root, inside))
        if role_of(only) and _two_parts(root, inside, deeper) is None:
            break
        base, level = inside, deeper
    return _lone_part(root, base, level)


def maybe_parts(root: str) -> list[str]:
    """Folders with images that are named like parts, where `find_parts` finds none: they may be classes."""
    folders = _level(root).folders
    named = [name for name in folders if loose_role(name) in ("train", "val")]
    both = len({loose_role(name) for name in named}) == 2
    doubtful = [name for name in named if both or role_of(name)]
    return [name for name in doubtful if _has_image(os.path.join(root, name))]


@dataclass(frozen=True)
class _Level:
    """The folders in a folder, sorted, and its first image; nothing where it cannot be listed."""

    folders: tuple[str, ...] = ()
    loose: str | None = None

    def of(self, role: Role) -> list[str]:
        return [name for name, found in roles_among(self.folders).items() if found == role]


def _level(folder: str) -> _Level:
    folders, images, names = [], [], set()
    try:
        with os.scandir(folder) as opened:
            for entry in opened:
                if entry.name.startswith("."):
                    continue
                names.add(entry.name)
                if entry.is_dir():
                    folders.append(entry.name)
                elif is_image_file(entry.name, entry.path):
                    images.append(entry.name)
    except OSError:
        return _Level()
    if is_output(folder, names, pages=False):
        return _Level()
    return _Level(tuple(sorted(folders)), min(images, default=None))


def _only_folder(folder: str, level: _Level) -> str | None:
    """The one folder that holds all images of a level; None where there are more, or images beside it."""
    if level.loose:
        return None
    holding = (name for name in level.folders if _has_image(os.path.join(folder, name)))
    found = list(itertools.islice(holding, 2))
    return found[0] if len(found) == 1 else None


def _two_parts(root: str, base: str, level: _Level) -> Parts | None:
    train, val = level.of("train"), level.of("val")
    return _parts(root, base, level, train, usual_first(val)) if train and val else None


def _lone_part(root: str, base: str, level: _Level) -> Parts | None:
    """Training folders alone, or held-out ones alone, where nothing else holds images.

    One with a longer name ("test_stg1" beside "train") is the other part then.
    """
    train, val = level.of("train"), level.of("val")
    if bool(train) == bool(val) or level.loose:
        return None
    rest = [name for name in level.folders if role_of(name) is None]
    rest = [name for name in rest if _has_image(os.path.join(root, base, name))]
    wanted: Role = "val" if train else "train"
    if any(loose_role(name) != wanted for name in rest):
        return None
    return _parts(root, base, level, train or rest, val or usual_first(rest))


def _parts(root: str, base: str, level: _Level, train: list[str], val: list[str]) -> Parts:
    def below(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(_unwrapped(root, os.path.join(base, name)) for name in names)

    others = [
        name
        for name in level.folders
        if name not in (*train, *val) and _has_image(os.path.join(root, base, name))
    ]
    loose = None if level.loose is None else os.path.join(base, level.loose)
    return Parts(below(train), below(val), tuple(os.path.join(base, name) for name in others), loose)


def _unwrapped(root: str, part: str) -> str:
    """Where a part holds nothing but a folder of its own role (seg_train/seg_train/CLASS), that folder."""
    role = role_of(os.path.basename(part))
    for _ in range(_DEEPEST):
        level = _level(os.path.join(root, part))
        if len(level.folders) != 1 or level.loose:
            break
        inside = level.folders[0]
        if inside != os.path.basename(part) and (role is None or role_of(inside) != role):
            break
        part = os.path.join(part, inside)
    return part


def _has_image(folder: str) -> bool:
    """Whether an image lies anywhere below a folder; links to folders in it are not followed."""
    for top, folders, names in os.walk(folder):
        if is_output(top, {*folders, *names}):
            folders.clear()
            continue
        if any(is_image_file(name, os.path.join(top, name)) for name in names):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")]
    return False


def _shown(folders: Sequence[str]) -> str:
    return " and ".join(f"{printable(folder)}/" for folder in folders)
