"""Requests to a remote, repeated where an error may pass: ranges of bytes, states of files, listings."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.remote.urls import file_system

T = TypeVar("T")
U = TypeVar("U")

TRIES = 8
"""Requests before a remote counts as gone: about 40 seconds of waiting."""
FIRST_TRIES = 4
"""The same where a file is opened, and the name may be wrong: about 3 seconds."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 16.0
_BUGS = (TypeError, AttributeError, NameError, AssertionError)
_PASSING = (408, 425, 429)
"""Answers of HTTP that ask for another try, though they are of those that blame the request."""
_STAMPS = (
    *("ETag", "etag", "Content-MD5", "md5Hash", "generation", "blob_id", "LastModified", "Last-Modified"),
    *("last_modified", "updated", "mtime", "created"),
)
"""What a listing may say that differs where a file was written anew; the first that is there counts."""
THREADS = 16
"""Requests that wait for a remote at the same time."""


def read_range(url: str, first: int, size: int, tries: int = TRIES) -> bytes:
    """The bytes of a file at a remote from one on, by one request.

    Raises:
        Unreadable: where they cannot be had, now or later.
        LaminaError: where the remote does not answer, or does not give parts of files.
    """
    if size <= 0:
        return b""

    def get() -> bytes:
        system, path = file_system(url)
        found: bytes = system.cat_file(path, start=first, end=first + size)
        if len(found) < size:
            raise EOFError(f"{len(found)} of {size} bytes came")
        if len(found) > size:
            raise LaminaError(f"{printable(url)} is on a server that gives no parts of files; download it")
        return found

    return patiently(get, url, tries)


def read_whole(url: str, size: int) -> bytes:
    """All bytes of a file at a remote; raises as `read_range`, and `Unreadable` where it has another size."""

    def get() -> bytes:
        system, path = file_system(url)
        found: bytes = system.cat_file(path)
        if len(found) < size:
            raise EOFError(f"{len(found)} of {size} bytes came")
        return found

    found = patiently(get, url)
    if len(found) != size:
        raise Unreadable(Reason.BROKEN, f"it has {len(found)} bytes, and had {size} when it was listed")
    return found


def size_and_stamp(url: str) -> tuple[int, str]:
    """The number of bytes of a file at a remote, and what differs where it was written anew: its ETag, its
    checksum or the time of its last change, whichever its file system states; "" where it states none.

    Raises:
        Unreadable: where there is no such file, or it may not be read.
        LaminaError: where the remote does not answer, or does not state the size.
    """

    def get() -> Any:
        system, path = file_system(url)
        system.invalidate_cache()  # what was listed before may have changed
        return system.info(path)

    info = patiently(get, url, FIRST_TRIES)
    if info.get("type") == "directory":
        raise Unreadable(Reason.NOT_A_FILE, "a folder")
    return sized_and_stamped(url, info)


def sized_and_stamped(url: str, info: dict[str, Any]) -> tuple[int, str]:
    """The same from what a listing says of the file."""
    size = info.get("size")
    if not isinstance(size, int):
        raise LaminaError(f"the size of {printable(url)} is not stated by its server; download it")
    return size, next((str(info[key]) for key in _STAMPS if info.get(key)), "")


def listed_below(url: str) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """The URL of a folder at a remote as listings write it, and those of all files in it, sorted, each with
    what the listing says of it.

    Raises:
        Unreadable: where there is no such folder.
        LaminaError: where the remote does not answer.
    """

    def get() -> tuple[str, list[tuple[str, dict[str, Any]]]]:
        system, path = file_system(url)
        found = system.find(path, detail=True)
        if not found and not system.exists(path):
            raise FileNotFoundError(path)
        files = [(system.unstrip_protocol(name), info) for name, info in found.items()]
        return system.unstrip_protocol(path), sorted(files, key=lambda file: file[0])

    return patiently(get, url, FIRST_TRIES)


def matching(pattern: str) -> list[str]:
    """URLs of the files at a remote that match a pattern; raises as `listed_below`."""

    def get() -> list[str]:
        system, path = file_system(pattern)
        return sorted(system.unstrip_protocol(name) for name in system.glob(path))

    return patiently(get, pattern, FIRST_TRIES)


def in_parallel(action: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """What an action gives for each of the items, in their order; several wait for the remote at a time. At
    most 2 x `THREADS` results wait to be taken, so that they are never all in memory."""
    running: deque[Future[U]] = deque()
    with ThreadPoolExecutor(THREADS, "lamina-remote") as pool:
        try:
            for item in items:
                if len(running) == 2 * THREADS:
                    yield running.popleft().result()
                running.append(pool.submit(action, item))
            while running:
                yield running.popleft().result()
        finally:
            for left in running:
                left.cancel()


def patiently(action: Callable[[], T], url: str, tries: int = TRIES) -> T:
    """What an action gives that asks a remote, tried again with growing, random waits where it fails by what
    may pass.

    Raises:
        Unreadable: where another try would not help: there is no such file, it may not be read, it has fewer
            bytes than were asked for.
        LaminaError: where all tries failed.
    """
    for attempt in range(tries):
        try:
            return action()
        except (LaminaError, Unreadable, *_BUGS):
            raise
        except Exception as error:  # the packages of the protocols have no common ancestor of theirs
            last = _of_network(error)
            if (reason := _lasting(last)) is not None:
                raise Unreadable(reason, _one_line(last)) from None
        if attempt < tries - 1:
            _wait(min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt))
    if isinstance(last, EOFError):
        raise Unreadable(Reason.BROKEN, _one_line(last))
    raise LaminaError(
        f"{printable(url)} cannot be read: {_one_line(last)}, {tries} times in a row; look at the network "
        "and start the command again (a training goes on with --resume)"
    )


def _wait(seconds: float) -> None:
    """Wait for half of that to all of it, so that many readers do not come back at the same moment."""
    time.sleep(random.SystemRandom().uniform(seconds / 2, seconds))


def _lasting(error: Exception) -> Reason | None:
    """Why another try would not help; None where it may."""
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return Reason.MISSING
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
        return Reason.FORBIDDEN
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return Reason.NOT_A_FILE
    if isinstance(error, ValueError | NotImplementedError) or (
        400 <= status < 500 and status not in _PASSING
    ):
        return Reason.BROKEN
    return None


def _of_network(error: Exception) -> Exception:
    """What went wrong with an answer or a connection where fsspec says of HTTP that there is no such file,
    whatever it was; else the error itself."""
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return error
    known = isinstance(cause, OSError) or _status(cause) or type(cause).__module__.startswith("aiohttp")
    return cause if known else error


def _status(error: Exception) -> int:
    """The number of an answer of HTTP, as aiohttp, gcsfs and botocore keep it in their errors; 0 for none."""
    answer = getattr(error, "response", None)
    found = (
        getattr(error, "status", None),
        getattr(error, "code", None),
        getattr(answer, "status_code", None),
        answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None,
    )
    return next((int(n) for n in found if isinstance(n, int) or (isinstance(n, str) and n.isdecimal())), 0)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)[:200]
