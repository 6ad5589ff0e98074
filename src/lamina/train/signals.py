"""Signals as a request to stop at the next step, with everything saved."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_STOP = ("SIGINT", "SIGTERM")
_WARN = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")
"""What a lost terminal and schedulers send before they end a process (`sbatch --signal=USR1@120`); noted
where the program has no use of its own for them."""

_SAME_REQUEST_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""How long a run that was asked to stop goes on waiting for its next batch."""
_LOOK_EVERY_SECONDS = 0.2


class Interrupted(BaseException):
    """A signal asks the run to stop, and it waits for data that does not come.

    No `Exception`, or a reader that takes every exception for a damaged file would swallow it.
    """


class StopRequest:
    """A context in which the first signal is noted, and the same one a second time ends the process at once.

    So does SIGINT after any other; another signal than the first is the same request (a scheduler's warning
    is followed by SIGTERM). Signals within a second of the first are the same request too: under torchrun
    Ctrl-C reaches a rank twice, from the terminal and from the launcher. Ending at once harms no file, since
    files are renamed into place whole. A signal that the process ignores stays ignored (nohup; jobs in the
    background of a script). Loader workers that were forked from this process ignore them: the parent stops
    them. Outside the main thread, where Python allows no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0
        self._owner = os.getpid()
        self._before: dict[signal.Signals, Any] = {}
        self._waiting_since: float | None = None
        self._pressing = False
        self._pressed = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _noted()}
            threading.Thread(target=self._press, name="lamina-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A wait that a signal may end: `Interrupted` is raised in it `PATIENCE_SECONDS` after the signal.

        Not at once: a batch that comes is trained on, and ranks that all have theirs stop at the same step.
        An error in the wait is taken for the same request: a scheduler signals the workers too, and they end.
        """
        self._waiting_since = time.monotonic()
        try:
            yield
        except Exception as error:
            if self.signal is None:
                raise
            raise Interrupted from error
        finally:
            self._waiting_since = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return
        if self._pressing:
            self._pressing = False
            if self._waiting_since is not None:
                raise Interrupted
        elif self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
        elif number in (self.signal, signal.SIGINT) and self._age() > _SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def _age(self) -> float:
        return time.monotonic() - self._since

    def _press(self) -> None:
        """Deliver the noted signal once more to a main thread that waits too long. Runs in a thread."""
        main = threading.main_thread().ident
        while not self._ended.wait(_LOOK_EVERY_SECONDS):
            received, since = self.signal, self._waiting_since
            if received is None or since is None:
                continue
            now = time.monotonic()
            if now < max(self._since, since, self._pressed) + PATIENCE_SECONDS:
                continue
            self._pressing, self._pressed = True, now
            if hasattr(signal, "pthread_kill") and main is not None:
                signal.pthread_kill(main, received)
            else:  # Windows
                _thread.interrupt_main(received)


class Stopped(KeyboardInterrupt):
    """A signal that asks to end came where no training notes it; it is treated as Ctrl-C is."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


class _Raise:
    """A handler that raises `Stopped` once; the same signal later ends the process at once."""

    def __init__(self) -> None:
        self._owner, self._since = os.getpid(), 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if os.getpid() != self._owner:  # a worker, which its parent ends
            return
        if not self._since:
            self._since = now
            raise Stopped(number)
        if now > self._since + _SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def raised_signals() -> Iterator[None]:
    """While this lasts, the signals that ask to end raise `Stopped`, as Ctrl-C raises `KeyboardInterrupt`.

    Trainings inside note them (`StopRequest`). Signals that the program ignores or uses stay as they are, and
    so does everything outside of the main thread.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handler = _Raise()
        unused = [number for number in _noted() if signal.getsignal(number) is signal.SIG_DFL]
        before = {number: signal.signal(number, handler) for number in unused}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _noted() -> list[signal.Signals]:
    """The signals of this platform that ask to stop, but those that are ignored or have a use already."""
    stop = [getattr(signal, name) for name in _STOP]
    warn = [getattr(signal, name) for name in _WARN if hasattr(signal, name)]
    # None: a handler that Python did not install, and cannot put back.
    noted = [number for number in stop if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    handlers = {number: signal.getsignal(number) for number in warn}
    return noted + [
        n for n, found in handlers.items() if found is signal.SIG_DFL or isinstance(found, _Raise)
    ]
