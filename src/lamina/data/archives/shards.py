"""Which archives a name stands for: one, a pattern with braces or wildcards, a folder of shards alone."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.file_names import is_image_name

ENDING = ".tar"
_COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst|lz4|Z)|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_SHARDS = 1_000_000


def shards_of(spec: str) -> list[str] | None:
    """Paths of the archives that `spec` names, sorted; None where it names something else.

    `{000000..000099}` counts, with as many digits as its first number has; `{a,b}` lists. A folder counts as
    its archives where it holds archives, perhaps in folders, and no images.

    Raises:
        LaminaError: for an archive that is compressed or not there, and for a pattern that is not understood.
    """
    if _COMPRESSED.search(spec):
        raise LaminaError(
            f"{printable(spec)} is compressed, so that images in it cannot be read by their place; "
            "decompress it once to a .tar file (gunzip, xz -d, zstd -d)"
        )
    if os.path.isdir(spec):
        return _in_folder(spec)
    if not spec.lower().endswith(ENDING):
        return None
    if os.path.lexists(spec):
        return [spec]
    paths = list(itertools.islice(_expanded(spec), _MOST_SHARDS + 1))
    if len(paths) > _MOST_SHARDS:
        raise LaminaError(f"{printable(spec)} names more than {_MOST_SHARDS:,} files; name fewer")
    found = [path for pattern in paths for path in _matching(pattern)]
    if missing := [path for path in found if not os.path.isfile(path)]:
        more = f", and {len(missing) - 1} more of {len(found)}" if len(missing) > 1 else ""
        raise LaminaError(f"there is no {printable(missing[0])}{more}; name only shards that are there")
    if not found:
        raise LaminaError(f"no file matches {printable(spec)}; give the path of tar files")
    return sorted(set(found))


def _matching(pattern: str) -> list[str]:
    return glob.glob(pattern) if glob.has_magic(pattern) and not os.path.lexists(pattern) else [pattern]


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
        found += [
            os.path.join(top, name)
            for name in names
            if name.lower().endswith(ENDING) and not name.startswith(".")
        ]
    return sorted(found) or None
