"""Which part of a data set a folder is by its name, alone or among the folders beside it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

from lamina.core.text import counted

Role = Literal["train", "val", "unlabelled"]

_TRAIN = ("train", "training", "trainval", "trn", "labeled", "labelled")
_HELD_OUT = ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "test", "testing")
_UNLABELLED = ("unlabeled", "unlabelled", "unsupervised", "extra")
_AROUND = "|".join(("sets?", "images?", "imgs?", "pictures?", "photos?", "data", "split", "samples?", "seg"))
_WORDS = "|".join((*_TRAIN, *_HELD_OUT, *_UNLABELLED))
_PATTERN = re.compile(f"(?:{_AROUND})?(?P<part>{_WORDS})(?:{_AROUND})*")
_SHORT = {"tr": "train", "ts": "test", "te": "test"}
"""Words of a part only beside a word for images, and where another folder has the other part: imagesTr and
imagesTs. (Alone, tr and te are languages as well.)"""
_TARGETS = re.compile("(?:labels?|masks?|gt|annotations?|annots?|targets?)")
"""Folders with such a word hold labels and no images to train on: labelsTr."""
_CAPITALS = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


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


def word_in(name: str) -> str | None:
    """The one word of a part in a folder's name, in lower case: "train" in DIV2K_train_HR.

    Words end at punctuation, digits and capitals. None where there is no such word, or more than one.
    """
    whole = part_named(name)
    if whole is not None:
        return whole
    words = [word for token in _tokens(name) if (word := part_named(token))]
    return words[0] if len(words) == 1 else None


def loose_role(name: str) -> Role | None:
    """The role that `word_in` has; a folder of that name may as well be a class (test_tube)."""
    return role_of(word_in(name) or "")


def roles_among(names: Iterable[str]) -> dict[str, Role]:
    """Roles of folders that lie beside each other; without those that may be classes.

    Where names as a whole (`role_of`) give no training and held-out part, names that differ in the word of
    the part alone do: DIV2K_train_HR and DIV2K_valid_HR, imagesTr and imagesTs. Digits do not count.
    """
    names = list(names)
    sure: dict[str, Role] = {name: role for name in names if (role := role_of(name))}
    if {"train", "val"} <= set(sure.values()):
        return sure
    stems: defaultdict[tuple[str, ...], dict[str, Role]] = defaultdict(dict)
    for name in names:
        if name not in sure and (split := _stem_and_role(name)):
            stems[split[0]][name] = split[1]
    pairs = [found for found in stems.values() if {"train", "val"} <= set(found.values())]
    return {name: role for found in pairs for name, role in found.items()} or sure


def roles_of_all(levels: Iterable[Sequence[str]]) -> list[Role | None] | None:
    """The part of each image, by the first of several kinds of names that tells two parts; None where none
    does.

    Args:
        levels: in each a name for each image, such as that of its folder; "" for none. Of several held-out
            parts the most usual one counts (val before test), and the others are in neither part.
    """
    for level in levels:
        roles = roles_among(sorted(set(level) - {""}))
        if {"train", "val"} <= set(roles.values()):
            unused = {name for name, role in roles.items() if role == "val"}
            unused -= set(usual_first(sorted(unused)))
            return [None if name in unused else roles.get(name) for name in level]
    return None


def part_note(train: int, val: int, of: int) -> str:
    """How many of so many images each part has, for users."""
    others = counted(of - train - val, "image")
    unused = "" if others.startswith("0 ") else f"; {others} in neither"
    return f"the training part has {counted(train, 'image')}, the held-out part {val}{unused}"


def _stem_and_role(name: str) -> tuple[tuple[str, ...], Role] | None:
    tokens = [token.lower() for token in _tokens(name)]
    words = [(i, word) for i, token in enumerate(tokens) if (word := part_named(token) or _short(i, tokens))]
    if len(words) != 1 or any(_TARGETS.fullmatch(token) for token in tokens):
        return None
    i, word = words[0]
    role = role_of(word)
    return ((*tokens[:i], "*", *tokens[i + 1 :]), role) if role else None


def _short(i: int, tokens: list[str]) -> str | None:
    others = [*tokens[:i], *tokens[i + 1 :]]
    about_images = others and all(re.fullmatch(_AROUND, token) for token in others)
    return _SHORT.get(tokens[i]) if about_images else None


def _tokens(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", _CAPITALS.sub(" ", name))


def most_usual(names: Iterable[str], role: Role) -> list[str]:
    """The names of such a part with the most usual word for it: where there are val and test, val."""
    return usual_first([name for name in names if role_of(name) == role])


def usual_first(names: Iterable[str]) -> list[str]:
    """Those of the names of one role that use the most usual word for it."""
    names = list(names)
    first = min(map(rank, names), default=None)
    return [name for name in names if rank(name) == first]


def rank(name: str) -> int:
    """Which of the words for its role a folder's name has; the most usual one is the first."""
    words = (*_TRAIN, *_HELD_OUT, *_UNLABELLED)
    word = word_in(name)
    return words.index(word) if word else len(words)


def goes_without_saying(names: Iterable[str]) -> bool:
    """Whether names are nothing but the words of parts."""
    return all(name in (*_TRAIN, *_HELD_OUT) for name in names)
