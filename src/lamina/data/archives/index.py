"""What an archive holds, kept in lamina's cache, so that a large one is walked through once."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lamina.core.files import replacing
from lamina.data.archives.tar import TarMembers, read_members
from lamina.data.found import PassedOver
from lamina.data.samples.cache import cache_folder

_FORMAT = 1
_WORTH_BYTES = 1 << 26
"""Size of an archive from which on its index is kept: smaller ones are walked through in no time."""
_NOT_OURS = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, MemoryError)


def members_of(path: str, keep_from_bytes: int = _WORTH_BYTES) -> TarMembers:
    """The images of a tar file, from the cache where its size and time of change are those of the index.

    An index that is damaged, or cannot be written, is as none.

    Args:
        keep_from_bytes: the size of an archive from which on its index is written to the cache.

    Raises:
        LaminaError: as `read_members`.
    """
    try:
        found = os.stat(path)
    except OSError:
        return read_members(path)  # which says why
    state = [_FORMAT, found.st_size, found.st_mtime_ns]
    file = _index_file(path)
    if found.st_size >= keep_from_bytes and (kept := _read(file, state)) is not None:
        return kept
    members = read_members(path)
    if found.st_size >= keep_from_bytes:
        with suppress(OSError):
            _write(file, state, members)
    return members


def _index_file(path: str) -> Path:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
    return cache_folder() / "archives" / f"{digest[:32]}.npz"


def _write(file: Path, state: list[int], members: TarMembers) -> None:
    about = {"state": state, "passed_over": asdict(members.passed_over)}
    content = {
        "about": _packed([json.dumps(about)]),
        "names": _packed(members.names),
        "labels": _packed(members.labels),
        "places": np.array([members.firsts, members.sizes], np.int64),
    }
    with replacing(file) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, allow_pickle=False, **content, seal=_seal(content))


def _read(file: Path, state: list[int]) -> TarMembers | None:
    """The index, where it is whole and of that state of the archive."""
    try:
        with np.load(file, allow_pickle=False) as opened:
            content = {name: opened[name] for name in ("about", "names", "labels", "places")}
            if not np.array_equal(opened["seal"], _seal(content)):
                return None
        about = json.loads(_unpacked(content["about"])[0])
        if about["state"] != state:
            return None
        firsts, sizes = content["places"].tolist()
        passed = {**about["passed_over"], "endings": Counter(about["passed_over"]["endings"])}
        names, labels = _unpacked(content["names"]), _unpacked(content["labels"])
        return TarMembers(names, firsts, sizes, labels, PassedOver(**passed))
    except _NOT_OURS:
        return None


def _seal(content: dict[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for name, array in sorted(content.items()):
        digest.update(name.encode() + array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _packed(texts: list[str]) -> np.ndarray:
    """Texts as bytes, each with a NUL behind it (no name in an archive has one)."""
    return np.frombuffer(b"".join(os.fsencode(text) + b"\0" for text in texts), np.uint8)


def _unpacked(content: np.ndarray) -> list[str]:
    return [os.fsdecode(text) for text in content.tobytes().split(b"\0")[:-1]]
