"""Which archives a name stands for: one, a pattern with braces or wildcards, a folder of shards alone."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.archives.members import Collector, Members, Place
from lamina.data.decode.unreadable import Unreadable
from lamina.data.file_names import is_image_name
from lamina.data.remote.requests import in_parallel, listed_below, matching, size_and_stamp, sized_and_stamped
from lamina.data.remote.urls import is_http, is_url, path_of

ENDINGS = (".tar", ".zip")
_COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4|Z)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class RemoteFolder:
    """A folder at a remote that holds no archives alone, as it was listed."""

    url: str
    root: str
    """The same as the URLs of the files have it."""
    files: list[tuple[str, dict[str, Any]]]
    """The URL of each file, and what the listing says of it."""

    def images(self) -> Members:
        """The images in it, by the rules of archives; `Place.first` is the number of the file."""
        found, root = Collector(), path_of(self.root).rstrip("/") + "/"
        for number, (url, info) in enumerate(self.files):
            name = url.removeprefix(root) if url.startswith(root) else url.rpartition("/")[2]
            size = int(info.get("size") or 0)
            found.take(path_of(name), True, Place(number, size), size, None)
        return found.result()

    def states(self, numbers: Sequence[int]) -> list[tuple[int, str]]:
        """Size and stamp of some files, as `requests.size_and_stamp` gives them; they are asked for one
        by one where the listing lacks sizes, as that of a web server does."""
        some = [self.files[k] for k in numbers]
        if all(info.get("size") is not None for _, info in some):
            return [sized_and_stamped(url, info) for url, info in some]
        return list(in_parallel(size_and_stamp, [url for url, _ in some]))


def archives_named(spec: object) -> list[str] | RemoteFolder | None:
    """Paths of the archives that `spec` names, sorted, or what is in a folder at a remote; None where it
    names something else.

    `{000000..000099}` counts, with as many digits as its first number has; `{a,b}` lists. A folder counts as
    its archives where it holds archives, perhaps in folders, and no images.

    Raises:
        LaminaError: for an archive that is compressed or not there, for a pattern that is not understood, and
            for a remote that does not answer.
    """
    if not isinstance(spec, str):
        return None
    if _COMPRESSED.search(path_of(spec)):
        raise LaminaError(
            f"{printable(spec)} is compressed, so that images in it cannot be read by their place; "
            "decompress it once to a .tar file (gunzip, xz -d, zstd -d)"
        )
    if os.path.isdir(spec):
        return _in_folder(spec)
    if not is_archive(spec):
        return _in_remote_folder(spec) if is_url(spec) else None
    if os.path.lexists(spec):
        return [spec]
    paths = list(itertools.islice(_expanded(spec), _MOST_SHARDS + 1))
    if len(paths) > _MOST_SHARDS:
        raise LaminaError(f"{printable(spec)} names more than {_MOST_SHARDS:,} files; name fewer")
    found = [path for pattern in paths for path in _matching(pattern)]
    if missing := [path for path in found if not is_url(path) and not os.path.isfile(path)]:
        more = f", and {len(missing) - 1} more of {len(found)}" if len(missing) > 1 else ""
        raise LaminaError(f"there is no {printable(missing[0])}{more}; name only shards that are there")
    if not found:
        raise LaminaError(f"no file matches {printable(spec)}; give the path of tar or zip files")
    return sorted(set(found))


def is_archive(path: str) -> bool:
    """Whether a name is that of an archive."""
    return path_of(path).lower().endswith(ENDINGS)


def without_ending(path: str) -> str:
    """The path of an archive without its ending."""
    return os.path.splitext(path_of(path))[0]


def _matching(pattern: str) -> list[str]:
    if is_url(pattern):
        return matching(pattern) if glob.has_magic(_wild(pattern)) else [pattern]
    return glob.glob(pattern) if glob.has_magic(pattern) and not os.path.lexists(pattern) else [pattern]


def _wild(url: str) -> str:
    """The URL without question marks, where they are no wildcards."""
    return url.replace("?", "") if is_http(url) else url


def _expanded(spec: str) -> Iterator[str]:
    """All names that braces stand for, the leftmost braces first."""
    found = _BRACES.search(spec)
    if found is None:
        yield spec
        return
    before, after = spec[: found.start()], spec[found.end() :]
    for middle in _choices(found[1], spec):
        for rest in _expanded(after):
            yield before + middle + rest


def _choices(inside: str, spec: str) -> Iterator[str]:
    if (numbers := _RANGE.fullmatch(inside)) is not None:
        first, last = int(numbers[1]), int(numbers[2])
        if last < first:
            raise LaminaError(
                f"{{{inside}}} in {printable(spec)} counts backwards; give the smaller number first"
            )
        yield from (f"{n:0{len(numbers[1])}d}" for n in range(first, last + 1))
    elif "," in inside:
        yield from inside.split(",")
    else:
        raise LaminaError(
            f"{{{printable(inside)}}} in {printable(spec)} is not understood; write {{000..099}} or {{a,b}}"
        )


def _in_folder(folder: str) -> list[str] | None:
    """The archives below a folder without images; None for other folders."""
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(is_image_name(name) for name in names):
            return None
        found += [os.path.join(top, name) for name in names if is_archive(name) and not name.startswith(".")]
    return sorted(found) or None


def _in_remote_folder(url: str) -> list[str] | RemoteFolder:
    """The same for a folder at a remote, or one file there."""
    if glob.has_magic(_wild(url)) or "{" in url:
        raise LaminaError(f"{printable(url)}: at a remote, patterns name tar and zip files; give a folder")
    try:
        root, files = listed_below(url)
    except Unreadable as error:
        raise LaminaError(f"{printable(url)} cannot be read: {printable(str(error))}") from None
    names = [path_of(name).rpartition("/")[2] for name, _ in files]
    archives = [files[k][0] for k, name in enumerate(names) if is_archive(name) and not name.startswith(".")]
    if archives and not any(is_image_name(name) for name in names):
        return sorted(archives)
    return RemoteFolder(url, root, files)
