"""Archives as files, here or at a remote: what tells one state of a file from another, and parts of it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

from lamina.core.errors import LaminaError
from lamina.core.terminal import why
from lamina.core.text import printable
from lamina.data.archives.window import Window
from lamina.data.decode.decode import open_regular
from lamina.data.decode.limits import Stream, check_memory
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.options import AS_STORED
from lamina.data.remote.blocks import BlockFile
from lamina.data.remote.requests import in_parallel, read_range, size_and_stamp
from lamina.data.remote.urls import is_url

_LOOK_AGAIN_SECONDS = 600
"""How often each process asks a remote whether an archive is still the one that was indexed."""
_CHANGED = "the archive around it was changed or replaced after it was indexed"


class State(NamedTuple):
    """What differs where a file was written anew."""

    size: int
    """Number of bytes."""
    stamp: str
    """The time of the last change in nanoseconds; of a file at a remote, its ETag or what there is of that
    kind."""


def states_of(paths: Sequence[str]) -> list[State]:
    """The state that each file has now.

    Raises:
        LaminaError: where one is not there; of several at a remote, it says how many are not.
    """
    if not is_url(paths[0]):
        return [_state_here(path) for path in paths]
    found = list(in_parallel(_state_there, paths))
    if missing := [path for path, state in zip(paths, found, strict=True) if isinstance(state, Unreadable)]:
        more = f", and {len(missing) - 1} more of {len(paths)} cannot either" if len(missing) > 1 else ""
        reason = printable(str(found[paths.index(missing[0])]))
        raise LaminaError(f"{printable(missing[0])} cannot be read: {reason}{more}")
    return [state for state in found if isinstance(state, State)]


def _state_here(path: str) -> State:
    try:
        return _of_stat(os.stat(path))
    except (OSError, ValueError) as error:
        raise LaminaError(f"cannot read {printable(path)}: {why(error)}") from None


def _state_there(url: str) -> State | Unreadable:
    try:
        return State(*size_and_stamp(url))
    except Unreadable as error:
        return error


def _of_stat(found: os.stat_result) -> State:
    return State(found.st_size, str(found.st_mtime_ns))


def identity_of(path: str) -> str:
    """The path or the URL by which a file is known wherever the process was started."""
    return path if is_url(path) else os.path.realpath(path)


@contextmanager
def whole_file(path: str, state: State) -> Iterator[Any]:
    """A file's bytes, with `read`, `seek` and `tell`, while it is indexed.

    Raises:
        LaminaError: where it is not there, no plain file, or fails to be read.
    """
    try:
        with BlockFile(path, state.size) if is_url(path) else io.BufferedReader(open_regular(path)) as file:
            yield file
    except Unreadable as error:
        raise LaminaError(f"cannot read {printable(path)}: {printable(str(error))}") from None
    except OSError as error:
        raise LaminaError(f"cannot read {printable(path)}: {why(error)}") from None


def part_of(path: str, state: State, first: int, size: int) -> Stream:
    """The bytes of a file from one on, at most so many; of one at a remote they are in memory.

    Raises:
        Unreadable: where the file is gone, or is no longer as it was when it was indexed.
        LaminaError: where a remote does not answer.
    """
    size = max(0, min(size, state.size - first))
    if is_url(path):
        _check_there(path, state, os.getpid(), int(time.monotonic() // _LOOK_AGAIN_SECONDS))
        check_memory(size, AS_STORED)  # it is held in memory
        return io.BytesIO(read_range(path, first, size))
    file = open_regular(path)
    if _of_stat(os.fstat(file.fileno())) != state:
        file.close()
        raise Unreadable(Reason.BROKEN, _CHANGED)
    return Window(file, first, size)


@lru_cache(1 << 14)
def _check_there(url: str, state: State, process: int, period: int) -> None:
    """Ask once in each process and period; what was found wrong is asked for again."""
    if State(*size_and_stamp(url)) != state:
        raise Unreadable(Reason.BROKEN, _CHANGED)
