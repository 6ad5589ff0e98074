"""The parts of a data set, told by the names of its folders: training, held out, unlabelled."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from lamina.data.files import is_image_name, printable
from lamina.data.outputs import is_output

Role = Literal["train", "val", "unlabelled"]

_TRAIN = ("train", "training", "trainval", "trn", "labeled", "labelled")
_HELD_OUT = ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "test", "testing")
_UNLABELLED = ("unlabeled", "unlabelled", "unsupervised", "extra")
_AROUND = "|".join(("sets?", "images?", "imgs?", "pictures?", "photos?", "data", "split", "samples?", "seg"))
_WORDS = "|".join((*_TRAIN, *_HELD_OUT, *_UNLABELLED))
_PATTERN = re.compile(f"(?:{_AROUND})?(?P<part>{_WORDS})(?:{_AROUND})*")
_DEEPEST = 4
"""Folders that hold nothing but one folder, as unpacked archives do, are looked through so far."""


def part_named(name: str) -> str | None:
    """The word that makes a folder's name that of a part, in lower case; None for other names.

    Case, digits and punctuation do not count, nor words around it: "Train", "val2017", "test_images".
    """
    found = _PATTERN.fullmatch(re.sub(r"[\W\d_]", "", name.lower()))
    return found["part"] if found else None


def role_of(name: str) -> Role | None:
    """Which part of a data set a folder of that name is; None where it may be a class."""
    part = part_named(name)
    if part is None:
        return None
    return "train" if part in _TRAIN else "val" if part in _HELD_OUT else "unlabelled"


def folders_in(folder: str) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted; none where it cannot be listed."""
    return _level(folder).folders


def folders_of(folder: str, role: Role) -> list[str]:
    """Names of the folders in a folder that are such a part; "val" goes before "test"."""
    return sorted(_level(folder).of(role), key=lambda name: (_rank(name), name))


def most_usual(names: Iterable[str], role: Role) -> list[str]:
    """Of names, those of such a part by the most usual word for it: of val and test, val is held out."""
    fitting = [name for name in names if role_of(name) == role]
    first = min(map(_rank, fitting), default=None)
    return [name for name in fitting if _rank(name) == first]


def _rank(name: str) -> int:
    """Which of the words for its role a folder's name has."""
    return (*_TRAIN, *_HELD_OUT, *_UNLABELLED).index(part_named(name) or "")


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
        usual = len(named) == 2 and all(name in (*_TRAIN, *_HELD_OUT) for name in named)
        return left if usual and not left else (self._said(), *left)

    def _said(self) -> str:
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

    Folders are parts where one is named as a training part and another as a held-out one, in any case; or
    where no other folder has images ("train" alone). A folder that holds all images is looked into.
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


@dataclass(frozen=True)
class _Level:
    """The folders in a folder, sorted, and its first image; nothing where it cannot be listed."""

    folders: tuple[str, ...] = ()
    loose: str | None = None

    def of(self, role: Role) -> list[str]:
        return [name for name in self.folders if role_of(name) == role]


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
                elif is_image_name(entry.name):
                    images.append(entry.name)
    except OSError:
        return _Level()
    if is_output(folder, names):
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
    return _parts(root, base, level, train, most_usual(val, "val")) if train and val else None


def _lone_part(root: str, base: str, level: _Level) -> Parts | None:
    """Training folders alone, or held-out ones alone, where nothing else holds images."""
    train, val = level.of("train"), level.of("val")
    others = [name for name in level.folders if role_of(name) is None]
    if bool(train) == bool(val) or level.loose:
        return None
    if any(_has_image(os.path.join(root, base, name)) for name in others):
        return None
    return _parts(root, base, level, train, val)


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
        if len(level.folders) != 1 or level.loose or role_of(level.folders[0]) != role:
            break
        part = os.path.join(part, level.folders[0])
    return part


def _has_image(folder: str) -> bool:
    """Whether an image lies anywhere below a folder; links to folders in it are not followed."""
    for top, folders, names in os.walk(folder):
        if is_output(top, {*folders, *names}):
            folders.clear()
            continue
        if any(is_image_name(name) for name in names):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")]
    return False


def _shown(folders: Sequence[str]) -> str:
    return " and ".join(f"{printable(folder)}/" for folder in folders)
