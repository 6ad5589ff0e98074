"""What an archive holds, kept in lamina's cache, so that a large one is walked through once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from lamina.core.locking import in_turn
from lamina.data.archives.files import State, identity_of, whole_file
from lamina.data.archives.members import Members, Place
from lamina.data.archives.progress import IndexProgress
from lamina.data.archives.tar import read_tar
from lamina.data.archives.zip import read_zip
from lamina.data.array_files import read_arrays, write_arrays
from lamina.data.columns import Names
from lamina.data.found import PassedOver
from lamina.data.remote.urls import path_of
from lamina.data.samples.cache import cache_folder

_FORMAT = 3
PATIENCE_SECONDS = 600.0
"""Longest wait for another process that indexes the same archive and may have been stopped."""


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
    return cache_folder() / "archives" / f"{digest[:32]}.arrays"


def _write(file: Path, state: State, members: Members) -> None:
    names, labels = Names(members.names), Names(members.labels)
    arrays = {
        "names": names.text.values,
        "name_ends": names.ends.values,
        "labels": labels.text.values,
        "label_ends": labels.ends.values,
        "places": np.array(members.places, np.int64).reshape(-1, len(Place._fields)),
    }
    write_arrays(file, arrays, {"state": [_FORMAT, *state], "passed_over": vars(members.passed_over)})


def _read(file: Path, state: State) -> Members | None:
    """The index, where it is whole and of that state of the archive."""
    found = read_arrays(file)
    if found is None or found[1]["state"] != [_FORMAT, *state]:
        return None
    arrays, about = found
    passed = {**about["passed_over"], "endings": Counter(about["passed_over"]["endings"])}
    return Members(
        list(Names(None, arrays["names"], arrays["name_ends"])),
        [Place(*place) for place in arrays["places"].values.tolist()],
        list(Names(None, arrays["labels"], arrays["label_ends"])),
        PassedOver(**passed),
    )
