"""What an archive holds, kept in lamina's cache, so that a large one is walked through once."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from lamina.core.files import replacing
from lamina.core.locking import in_turn
from lamina.data.archives.files import State, identity_of, whole_file
from lamina.data.archives.members import Members, Place
from lamina.data.archives.progress import IndexProgress
from lamina.data.archives.tar import read_tar
from lamina.data.archives.zip import read_zip
from lamina.data.found import PassedOver
from lamina.data.remote.urls import path_of
from lamina.data.samples.cache import cache_folder

_FORMAT = 2
PATIENCE_SECONDS = 600.0
"""Longest wait for another process that indexes the same archive and may have been stopped."""
_NOT_OURS = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EOFError, MemoryError)


def members_of(path: str, state: State, keep: bool, progress: IndexProgress) -> Members:
    """The images of an archive, from the cache where it has the index of that state of the file.

    Of several processes that want the same index at the same time one makes it, and the others wait. An index
    that is damaged, or cannot be written, is as none.

    Args:
        keep: whether the index is looked for in the cache, and written to it.

    Raises:
        LaminaError: where the archive cannot be read, is damaged, or was made to do harm.
    """
    if not keep:
        return _read_members(path, state, progress)
    file = _index_file(path)
    if (kept := _read(file, state)) is None:
        with ExitStack() as lock:
            with suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                lock.enter_context(in_turn(file.with_suffix(".lock"), PATIENCE_SECONDS, progress.waits))
            if (kept := _read(file, state)) is None:
                members = _read_members(path, state, progress)
                with suppress(OSError):
                    _write(file, state, members)
                return members
    progress.walked(state.size)
    return kept


def _read_members(path: str, state: State, progress: IndexProgress) -> Members:
    with whole_file(path, state) as file:
        if path_of(path).lower().endswith(".zip"):
            members = read_zip(path, file, state.size)
            progress.walked(state.size)
            return members
        return read_tar(path, file, state.size, progress.walked)


def _index_file(path: str) -> Path:
    digest = hashlib.sha256(os.fsencode(identity_of(path))).hexdigest()
    return cache_folder() / "archives" / f"{digest[:32]}.npz"


def _write(file: Path, state: State, members: Members) -> None:
    about = {"state": [_FORMAT, *state], "passed_over": vars(members.passed_over)}
    content = {
        "about": _packed([json.dumps(about)]),
        "names": _packed(members.names),
        "labels": _packed(members.labels),
        "places": np.array(members.places, np.int64).reshape(-1, len(Place._fields)),
    }
    with replacing(file) as temporary, open(temporary, "wb") as opened:
        np.savez(opened, allow_pickle=False, **content, seal=_seal(content))


def _read(file: Path, state: State) -> Members | None:
    """The index, where it is whole and of that state of the archive."""
    try:
        with np.load(file, allow_pickle=False) as opened:
            content = {name: opened[name] for name in ("about", "names", "labels", "places")}
            if not np.array_equal(opened["seal"], _seal(content)):
                return None
        about = json.loads(_unpacked(content["about"])[0])
        if about["state"] != [_FORMAT, *state]:
            return None
        passed = {**about["passed_over"], "endings": Counter(about["passed_over"]["endings"])}
        names, labels = _unpacked(content["names"]), _unpacked(content["labels"])
        places = [Place(*place) for place in content["places"].tolist()]
        return Members(names, places, labels, PassedOver(**passed))
    except _NOT_OURS:
        return None


def _seal(content: dict[str, np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for name, array in sorted(content.items()):
        digest.update(name.encode() + array.tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


def _packed(texts: list[str]) -> np.ndarray:
    """Texts as bytes, each with a NUL behind it (`members.Collector` takes none into a name or a class)."""
    return np.frombuffer(b"".join(os.fsencode(text) + b"\0" for text in texts), np.uint8)


def _unpacked(content: np.ndarray) -> list[str]:
    return [os.fsdecode(text) for text in content.tobytes().split(b"\0")[:-1]]
