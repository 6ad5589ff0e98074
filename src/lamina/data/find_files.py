"""Finding image files: folders however nested, globs, lists; what is passed over is counted."""

from __future__ import annotations

import codecs
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.dicom_files import is_image_file
from lamina.data.file_names import ending, is_image_name
from lamina.data.found import Found, PassedOver
from lamina.data.outputs import is_output

_UTF_16 = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
"""Byte order marks, which Windows puts in front of a text."""


def find_images(folder: str | os.PathLike[str], within: str = "") -> Found:
    """All images below `folder`/`within`; names are relative to `folder`.

    Links are followed. Each file appears once, whatever links lead to it, under its own path where that
    is inside the folder; so links cannot loop. Pipes, dangling links and the like are listed if their
    name is an image's: reading them gives the reason. Folders that lamina wrote are passed over.

    Raises:
        LaminaError: where the folder itself cannot be listed (folders in it that cannot are passed over), or
            lamina wrote it.
    """
    top = os.path.join(folder, within) if within else os.fspath(folder)
    try:
        os.scandir(top).close()
    except OSError as error:
        raise LaminaError(f"cannot list the folder {printable(top)}: {error.strerror}") from None
    found = _Search(within, os.path.realpath(top)).found
    if within in found.passed_over.outputs:
        raise LaminaError(f"{printable(top)} was written by lamina and is no data; give a folder of images")
    return found


class _Search:
    """One search: own files first, then what links lead to, in sorted order."""

    def __init__(self, relative: str, root: str) -> None:
        self.found = Found()
        self._named: dict[str, str] = {}  # real path -> path relative to the folder
        self._folders = {root: relative}  # the same for folders
        self._root = root
        linked = [(relative, root)]
        while linked:
            links = sorted(link for top in linked for link in self._walk(*top))
            linked = [folder for path, own in links if (folder := self._follow(path, own)) is not None]
        self.found.names = sorted(self._named.values())

    def _follow(self, path: str, own: str) -> tuple[str, str] | None:
        """Take in the file that a link leads to; or give the folder, to be searched next."""
        real = os.path.realpath(own)
        if os.path.isdir(real):
            if real not in self._folders:
                self._folders[real] = path
                return path, real
            if own.startswith(os.path.join(real, "")):  # to a folder around it: a loop
                self.found.passed_over.repeats += 1
            else:
                self.found.links.append((path, self._folders[real]))
        elif not is_image_file(os.path.basename(path), real):
            self._pass_over(os.path.basename(path))
        elif self._named.setdefault(real, path) != path:
            self.found.links.append((path, self._named[real]))
        return None

    def _walk(self, relative: str, real: str) -> Iterator[tuple[str, str]]:
        """Take in the files of one folder tree; give each link met on the way, and its own real path."""
        passed, pending = self.found.passed_over, [(relative, real)]
        while pending:
            relative, real = pending.pop()
            try:
                with os.scandir(real) as opened:
                    entries = list(opened)
            except OSError as error:
                passed.unlisted[relative] = error.strerror or str(error)
                continue
            if is_output(real, {entry.name for entry in entries}, pages=real != self._root):
                passed.outputs.append(relative)
                continue
            before = os.path.join(relative, "") if relative else ""
            for entry in entries:
                path = before + entry.name
                if entry.name.startswith("."):
                    passed.hidden += entry.is_dir(follow_symlinks=False) or is_image_name(entry.name[1:])
                elif entry.is_symlink():
                    yield path, entry.path
                elif entry.is_dir():
                    if entry.path not in self._folders:
                        self._folders[entry.path] = path
                        pending.append((path, entry.path))
                elif is_image_file(entry.name, entry.path):
                    self._named.setdefault(entry.path, path)
                else:
                    self._pass_over(entry.name)

    def _pass_over(self, name: str) -> None:
        self.found.passed_over.endings[ending(name)] += 1


def is_glob(spec: str) -> bool:
    """Whether a text is a pattern rather than the path of something that exists."""
    return glob.has_magic(spec) and not os.path.lexists(spec)


def match_glob(pattern: str) -> Found:
    """The images that match a glob pattern (`**` is any number of folders), sorted, each file once.

    Folders that match are searched; images in folders that lamina wrote are passed over.
    """
    found, outputs, searched = Found(), _Outputs(), set[str]()
    names: dict[str, str] = {}  # real path -> path
    for path in sorted(glob.iglob(pattern, recursive=True)):
        real = os.path.realpath(path)
        if not searched.isdisjoint(_around(real)):
            continue
        if (folder := outputs.around(path)) is not None:
            if folder not in found.passed_over.outputs:
                found.passed_over.outputs.append(folder)
        elif os.path.isdir(real):
            searched.add(real)
            for file in _take_folder(path, found.passed_over):
                names.setdefault(os.path.realpath(file), file)
        elif is_image_file(os.path.basename(path), path):
            names.setdefault(real, path)
        else:
            found.passed_over.endings[ending(path)] += 1
    found.names = list(names.values())
    return found


def listed(paths: Iterable[str]) -> Found:
    """Paths as they are given, but for folders among them, which are searched."""
    found = Found()
    for path in paths:
        if not is_image_name(os.path.basename(path)) and os.path.isdir(path):
            found.names += _take_folder(path, found.passed_over)
        else:
            found.names.append(path)
    return found


def _take_folder(folder: str, passed_over: PassedOver) -> list[str]:
    """The paths of all images in a folder; what is passed over is added."""
    inside = find_images(folder)
    passed_over.add(inside.passed_over.below(folder))
    passed_over.repeats += len(inside.links)
    return [os.path.join(folder, name) for name in inside.names]


def _around(path: str) -> Iterator[str]:
    """The path, its folder, that one's folder, and so on."""
    yield path
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


class _Outputs:
    """Which folder of lamina's a path is in; each folder is looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {"": None}

    def around(self, path: str) -> str | None:
        """The outermost one, from the path's own folder upwards; None where there is none."""
        return self._folder(path if os.path.isdir(path) else os.path.dirname(path))

    def _folder(self, folder: str) -> str | None:
        folder = folder.rstrip(os.sep)
        if folder not in self._known:
            above = self._folder(os.path.dirname(folder))
            self._known[folder] = above or (folder if _is_output(folder) else None)
        return self._known[folder]


def _is_output(folder: str) -> bool:
    try:
        return is_output(folder, set(os.listdir(folder)))
    except OSError:
        return False


def read_list(file: str | os.PathLike[str]) -> list[str]:
    """The paths in a text file, one on each line, relative to the file's folder; blank lines are skipped.

    Bytes that are no UTF-8 are kept as they are; UTF-16 is recognised by its byte order mark.
    """
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise LaminaError(f"cannot read the list {printable(str(file))}: {error.strerror}") from None
    folder = os.path.dirname(os.path.abspath(file))
    names = (line.removesuffix("\r") for line in text_of(content).split("\n"))
    return [os.path.normpath(os.path.join(folder, name)) for name in names if name.strip()]


def text_of(content: bytes) -> str:
    """The text of a file: UTF-16 by its byte order mark, else UTF-8, whose invalid bytes are surrogates."""
    for mark, encoding in _UTF_16:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    return os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
