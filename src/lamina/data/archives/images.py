"""The images of several archives as columns: their names in order, where they lie, and what tells their
classes and parts. Ten million images as objects would take several gigabytes while they are indexed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped
from numpy.typing import NDArray

from lamina.data.archives.members import Members
from lamina.data.columns import Names
from lamina.data.found import PassedOver
from lamina.data.part_names import role_of

Codes = Shaped[NDArray[Any], "N"]


@dataclass
class Texts:
    """A text for each of many images, of which many have the same."""

    known: list[str]
    """Each text once."""
    codes: Codes
    """Of each image the place of its text in `known`."""

    def used(self) -> list[str]:
        """The texts that some image has."""
        return [self.known[code] for code in np.unique(self.codes).tolist()]

    def without(self) -> Int64[NDArray[np.int64], "n"]:
        """The images whose text is empty."""
        empty = np.array([not text for text in self.known])
        return np.flatnonzero(empty[self.codes])


@dataclass
class Images:
    """The images of archives, sorted by name."""

    names: Names
    """The members' names; of one of several archives, with the archive's own name before it."""
    spans: Int64[NDArray[np.int64], "N k"]
    """Of each image the number of its archive, and its `members.Place`."""
    archive: Texts
    """Of each image the archive's own name: its path below the common folder, without its ending."""
    outer: Texts
    """The outermost folder that the member is in, below a folder that holds all others; "" where it is in
    none."""
    second: Texts
    """The folder in that one."""
    labels: Texts
    """What a file beside the image says of its class; "" where none does."""
    passed_over: PassedOver

    def __len__(self) -> int:
        return len(self.names)


class ImagesBuilder:
    """Takes the members of archives, one archive after the other."""

    def __init__(self) -> None:
        self._names: list[Names] = []
        self._spans: list[Int64[NDArray[np.int64], "n k"]] = []
        self._archive, self._labels = _Coded(), _Coded()
        self._folders = (_Coded(), _Coded(), _Coded())
        """The folders that each member is in, from the outermost one on."""
        self._passed_over = PassedOver()

    def add(self, own: str, number: int, members: Members) -> None:
        """The members of archive `number`, whose name is `own`; "" where it is the only one."""
        self._passed_over.add(members.passed_over)
        if not members.names:
            return
        order = sorted(range(len(members.names)), key=members.names.__getitem__)
        names = [members.names[i] for i in order]
        folders = [name.rpartition("/")[0].split("/", 3) for name in names]
        self._names.append(Names(f"{own}/{name}" if own else name for name in names))
        self._spans.append(np.insert(np.array(members.places, np.int64)[order], 0, number, axis=1))
        self._archive.add(own for _ in names)
        for level, coded in enumerate(self._folders):
            coded.add(folder[level] if len(folder) > level else "" for folder in folders)
        self._labels.add(members.labels[i] for i in order)

    def result(self) -> Images | PassedOver:
        """All images, sorted by name; what was passed over, where there are none."""
        if not self._names:
            return self._passed_over
        ends = [(names[0], names[-1]) for names in self._names]
        names, spans = Names.joined(self._names), np.concatenate(self._spans)
        order = None
        if any(one[1] > other[0] for one, other in pairwise(ends)):
            order = np.array(sorted(range(len(names)), key=names.__getitem__))
            names, spans = names.at(order), spans[order]
        first, second, third = (coded.texts(order) for coded in self._folders)
        outer, inner = (second, third) if _holds_all(first, second) else (first, second)
        return Images(
            names,
            spans,
            self._archive.texts(order),
            outer,
            inner,
            self._labels.texts(order),
            self._passed_over,
        )


def _holds_all(outer: Texts, second: Texts) -> bool:
    """Whether the outermost folder is one that all others are in, as `tar -cf photos.tar photos` makes it:
    neither a class nor a part."""
    used = outer.used()
    return len(used) == 1 and role_of(used[0]) is None and not len(second.without())


class _Coded:
    """Texts as they come."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._codes: list[Codes] = []

    def add(self, texts: Iterable[str]) -> None:
        known = self._known
        self._codes.append(np.array([known.setdefault(text, len(known)) for text in texts], np.int32))

    def texts(self, order: Codes | None) -> Texts:
        codes = np.concatenate(self._codes)
        return Texts(list(self._known), codes if order is None else codes[order])
