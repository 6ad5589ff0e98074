"""Locks so that one process writes, at once or in its turn; they end with that process, however that ends."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from lamina.core.errors import LaminaError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
_FAR = 1 << 30  # the byte that Windows locks: others can still read who holds the file
_POLL_SECONDS = 0.05
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def one_writer(folder: Path, what: str) -> Iterator[None]:
    """Hold the folder's lock; `what` names it in errors. The folder is there already.

    The lock is the system's (record locks of POSIX, byte ranges of Windows): it ends with the process, also
    with one that is killed, and is not passed on to forked workers. Network file systems share it between
    machines where they support locks at all (NFS 4, NFS 3 with lockd, SMB, Lustre mounted with `flock`); on
    those that do not, a line on standard error says so and nothing is locked.

    Raises:
        LaminaError: where another process holds it.
        OSError: where the file of the lock cannot be written.
    """
    file = folder / LOCK
    handle = _open(file, what)
    try:
        yield
    finally:
        _release(handle, file)


@contextmanager
def in_turn(file: Path, seconds: float, waits: Callable[[float, str], None]) -> Iterator[None]:
    """Hold the lock that is a file of this name, after whoever holds it now: for what several processes need,
    and one of them makes.

    The lock is that of `one_writer`: it ends with its process, and the next one gets it.

    Args:
        file: its folder is there already. The file is there while somebody holds the lock.
        seconds: the longest wait; after it nothing is locked, since the holder may have been stopped. The
            same holds, without a wait, where the file system has no locks. So it is for what may be made
            twice.
        waits: called again and again meanwhile, with the seconds waited and who holds the lock.

    Raises:
        OSError: where the file cannot be written.
    """
    start = time.monotonic()
    while isinstance(handle := _try(file, _nothing), _Holder):
        if (waited := time.monotonic() - start) > seconds:
            break
        waits(waited, str(handle))
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        if isinstance(handle, int):
            _release(handle, file)


class _Holder(str):
    """Who holds a lock, as they wrote it into its file."""


def _open(file: Path, what: str) -> int:
    """The lock's file, locked."""
    handle = _try(file, _warn)
    if isinstance(handle, _Holder):
        raise LaminaError(
            f"{what} is being written by another process ({handle}); wait for it, stop it, or choose "
            "another folder"
        )
    return handle


def _try(file: Path, without_locks: Callable[[OSError], None]) -> int | _Holder:
    """The lock's file, locked, or who holds it; one that its holder removed meanwhile is opened anew."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(handle, without_locks)
        except OSError as error:
            who = os.pread(handle, 200, 0) if hasattr(os, "pread") else os.read(handle, 200)
            os.close(handle)
            if error.errno not in _HELD:
                raise
            return _Holder(who.decode(errors="replace").strip() or "unknown")
        if _same(handle, file):
            break
        os.close(handle)
    holder_line = (
        f"process {os.getpid()} on {socket.gethostname()}, {datetime.now().isoformat(timespec='seconds')}\n"
    )
    os.truncate(handle if os.truncate in os.supports_fd else file, 0)
    os.write(handle, holder_line.encode())
    return handle


def _same(handle: int, file: Path) -> bool:
    """Whether the file that was locked is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def _lock(handle: int, without_locks: Callable[[OSError], None]) -> None:
    """Lock without waiting; raises OSError where another process holds it."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        without_locks(error)


def _warn(error: OSError) -> None:
    print(
        f"this file system has no locks ({error.strerror}): make sure yourself that no two commands write "
        "into one folder",
        file=sys.stderr,
    )


def _nothing(error: OSError) -> None:
    """What is made twice where there are no locks does no harm."""


def _release(handle: int, file: Path) -> None:
    """Remove the file while it is locked, then let go of it; where open files cannot be removed, after."""
    with suppress(OSError):
        file.unlink()
    os.close(handle)
    if sys.platform == "win32":
        with suppress(OSError):  # another process may hold it already
            file.unlink()
