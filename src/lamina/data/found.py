"""What a search for image files found, and what it passed over, in sentences."""

from __future__ import annotations

import bisect
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lamina.core.text import counted, printable

HELP = "`lamina data check --help` lists what is read"
_MOST_NAMED = 6


@dataclass
class PassedOver:
    """What lies in folders that were searched, and is not used."""

    endings: Counter[str] = field(default_factory=Counter)
    """Files that are no images by their name: how many of each ending (".heic"; "" for none)."""
    hidden: int = 0
    """Folders, and files with an image's ending, whose name begins with a dot."""
    repeats: int = 0
    """Links to folders and files that are there already, and are not used."""
    no_files: int = 0
    """Links, devices and sparse files within archives, which are never followed."""
    replaced: int = 0
    """Images within archives that a later one of the same name takes the place of."""
    unlisted: dict[str, str] = field(default_factory=dict)
    """Folders that could not be listed, with the reason."""
    outputs: list[str] = field(default_factory=list)
    """Folders that lamina wrote."""

    def add(self, other: PassedOver) -> None:
        """What another search passed over."""
        self.endings += other.endings
        self.hidden += other.hidden
        self.repeats += other.repeats
        self.no_files += other.no_files
        self.replaced += other.replaced
        self.unlisted |= other.unlisted
        self.outputs += other.outputs

    def below(self, folder: str) -> PassedOver:
        """The same, with paths in `folder`."""
        unlisted = {os.path.join(folder, path): reason for path, reason in self.unlisted.items()}
        outputs = [os.path.join(folder, path) for path in self.outputs]
        return replace(self, unlisted=unlisted, outputs=outputs)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind; none where there is nothing of it."""
        return (*self._files(), *self._folders())

    def _files(self) -> list[str]:
        found = []
        if n := self.endings.total():
            kinds = [f"{k} {printable(end) or 'without an ending'}" for end, k in self.endings.most_common()]
            found.append(f"{counted(n, 'file')} passed over by the ending: {_some(kinds)}; {HELP}")
        if self.hidden:
            hidden = counted(self.hidden, "hidden file or folder", "hidden files or folders")
            found.append(f"{hidden} passed over (names that begin with a dot)")
        if self.repeats:
            links = counted(self.repeats, "link")
            found.append(f"{links} passed over: the files are there under other names")
        if self.no_files:
            members = counted(self.no_files, "member")
            found.append(f"{members} of archives passed over: links, devices, or sparse files")
        if self.replaced:
            images = counted(self.replaced, "image")
            found.append(f"{images} of archives passed over, in whose place is a later one of the same name")
        return found

    def _folders(self) -> list[str]:
        found = []
        if self.unlisted:
            named = [f"{printable(path)} ({reason})" for path, reason in self.unlisted.items()]
            found.append(f"{counted(len(named), 'folder')} that cannot be listed passed over: {_some(named)}")
        if self.outputs:
            named = [printable(path) for path in sorted(self.outputs)]
            found.append(f"{counted(len(named), 'folder')} that lamina wrote passed over: {_some(named)}")
        return found


@dataclass
class Found:
    """Image files by name, sorted."""

    names: list[str] = field(default_factory=list)
    passed_over: PassedOver = field(default_factory=PassedOver)
    links: list[tuple[str, str]] = field(default_factory=list)
    """Further paths by a link, each with what it leads to: a file in `names`, by its name there, or a folder
    of such files (`below`); who does not use them adds them to `passed_over.repeats`."""

    def below(self, folder: str) -> list[str]:
        """The names that lie in a folder; `names` have to be sorted."""
        inside = os.path.join(folder, "")
        first = bisect.bisect_left(self.names, inside)
        return list(
            itertools.takewhile(
                lambda name: name.startswith(inside), itertools.islice(self.names, first, None)
            )
        )


def _some(texts: Sequence[str]) -> str:
    left = len(texts) - _MOST_NAMED
    return ", ".join(texts[:_MOST_NAMED]) + (f" and {left} more" if left > 0 else "")
