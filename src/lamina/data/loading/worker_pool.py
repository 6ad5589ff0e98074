"""What worker processes read, item by item, with a limit to every wait.

torch's DataLoader runs the workers, and a thread of ours asks it for items. So the process that trains never
waits where it can neither see a signal nor a worker that is dead or stopped, whatever it is that hangs.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.terminal import why
from lamina.data.loading.transfer import Packed, unpack

T = TypeVar("T")
log = logging.getLogger("lamina")

POLL_SECONDS = 0.5
WARN_AFTER_SECONDS = 30.0
"""Length of a wait, in seconds, after which a warning says once what the workers do."""
JOIN_SECONDS = 10.0

_END = object()
_CAUSES = {
    "SIGKILL": "the system does this when memory is short: take fewer workers (data.workers)",
    "SIGBUS": "shared memory is full: take fewer workers (data.workers), or enlarge it (Docker: --shm-size)",
}
_STATES = {"T": "is stopped", "t": "is stopped by a debugger", "D": "waits for a disk or a file server"}


class WorkerPool(Generic[T]):
    """One pass over a DataLoader with workers whose `collate_fn` is `pack`; iterate over it once.

    Args:
        loader: the DataLoader, not yet iterated.
        limit_seconds: the longest wait for an item.
    """

    def __init__(self, loader: DataLoader[Any], limit_seconds: float) -> None:
        self._loader, self._limit = loader, limit_seconds
        self._items: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._stop = threading.Event()
        self._workers: Sequence[BaseProcess] = ()
        self._device = torch.cuda.current_device() if torch.cuda.is_available() else None
        self._warned_full = False

    def __iter__(self) -> Iterator[T]:
        """The items in order.

        Raises:
            LaminaError: where a worker dies, or no item comes within the limit; and what the reader raised.
        """
        thread = threading.Thread(target=self._fetch, name="lamina-data", daemon=True)
        thread.start()
        ended = False
        try:
            while (item := self._next()) is not _END:
                yield item
            ended = True
        finally:
            self._close(thread, kill=not ended)

    # The thread that asks the DataLoader

    def _fetch(self) -> None:
        try:
            if self._device is not None:  # or pinned memory would be that of the first GPU
                torch.cuda.set_device(self._device)
            iterator = self._started()
            self._workers = getattr(iterator, "_workers", ())  # torch has no public name for them
            for packed in iterator:
                item = _unpacked(packed)
                pinned = self._device is not None and isinstance(item, Batch)
                if not self._put((item.pin_memory() if pinned else item, packed)):
                    return
            self._put(_END)
        except BaseException as error:  # handed over, and raised in the thread that waits
            self._put(error)

    def _started(self) -> Iterator[Any]:
        try:
            return iter(self._loader)
        except OSError as error:
            raise LaminaError(
                f"the data workers cannot be started ({why(error)}; they need processes, memory and room in "
                "/dev/shm for their queues); take fewer workers (data.workers; 0 uses none)"
            ) from error

    def _put(self, item: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    # The thread that waits for items

    def _next(self) -> Any:
        # Counted by polls and not by a clock: a process that was itself stopped for long has not waited.
        polls, warned = 0, False
        while True:
            try:
                return self._received(self._items.get(timeout=POLL_SECONDS))
            except queue.Empty:
                polls += 1
            self._raise_if_dead()
            waited = polls * POLL_SECONDS
            if waited >= self._limit:
                raise LaminaError(
                    f"no batch has come from the data workers for {waited:g} s ({self._doing()}); a disk or "
                    "file server may hang; where reading takes that long, raise data.worker_timeout_seconds"
                )
            if waited >= WARN_AFTER_SECONDS and not warned:
                warned = True
                log.warning("waiting for data for %.0f s: %s", waited, self._doing())

    def _received(self, got: Any) -> Any:
        if isinstance(got, BaseException):
            raise self._explained(got)
        if got is _END:
            return got
        item, packed = got
        if packed.full and not self._warned_full:
            self._warned_full = True
            log.warning(
                "shared memory has no room for a batch (%s): it travels through a pipe, which is slower; "
                "enlarge /dev/shm (Docker: --shm-size), or take fewer workers",
                packed.full,
            )
        return item

    def _explained(self, error: BaseException) -> BaseException:
        """The error of a broken connection, or of a DataLoader that lost a worker, in one line."""
        lost_worker = isinstance(error, RuntimeError) and "exited unexpectedly" in str(error)
        if not isinstance(error, _Broken) and not lost_worker:
            return error
        for worker in self._workers:  # the connection may break before the system says that a process is gone
            worker.join(POLL_SECONDS)
        try:
            self._raise_if_dead()
        except LaminaError as death:
            return death
        return LaminaError(f"the connection to the data workers broke ({error})")

    def _raise_if_dead(self) -> None:
        for worker in self._workers:
            code = worker.exitcode
            if code is None or code == 0:
                continue
            how = _signal_name(-code) if code < 0 else f"exit code {code}"
            cause = _CAUSES.get(how, "an image may have crashed its decoder: `lamina data check` finds it")
            raise LaminaError(f"a data worker died (process {worker.pid}, {how}): {cause}")

    def _doing(self) -> str:
        """What the workers do, as far as the system says."""
        found = [
            f"worker process {worker.pid} {_STATES[state]}"
            for worker in self._workers
            if (state := _state(worker.pid)) in _STATES
        ]
        return ", ".join(found) or f"{len(self._workers)} worker processes are busy"

    def _close(self, thread: threading.Thread, kill: bool) -> None:
        """End the workers and the thread: by force where the pass is left early, or a worker is stopped.

        A stopped process does not end by being asked to, and Python would wait for it at its own end. The
        thread may see the end of the workers some seconds later, and is not waited for.
        """
        self._stop.set()
        if not kill and not any(_state(worker.pid) in _STATES for worker in self._workers):
            thread.join(JOIN_SECONDS)
            kill = thread.is_alive()
        if kill:
            for worker in self._workers:
                worker.kill()
            thread.join(POLL_SECONDS)


class _Broken(Exception):
    """A batch could not be taken over from the worker that packed it."""


def _unpacked(packed: Packed) -> Any:
    try:
        return unpack(packed)
    except (OSError, EOFError) as error:
        raise _Broken(str(error) or type(error).__name__) from error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _state(pid: int | None) -> str:
    """The state of a process by one letter, on Linux; "" where it cannot be known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return ""
