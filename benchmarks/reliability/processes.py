"""Commands of lamina as processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lamina.cli.entry import main


class Command:
    """`lamina ARGUMENTS` in a child process; what it prints goes to a file, errors to another."""

    def __init__(self, arguments: Sequence[str], output: Path) -> None:
        self.errors = output.with_suffix(".err")
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments, output)

    def _run(self, arguments: Sequence[str], output: Path) -> None:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background job ignores it
            for path, descriptor in ((output, 1), (self.errors, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
            sys.stdout, sys.stderr = (os.fdopen(d, "w", buffering=1, closefd=False) for d in (1, 2))
            code = main(list(arguments))
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                import multiprocessing.util

                multiprocessing.util._exit_function()  # what Python does at its end: children are waited for
            os._exit(code)

    def send(self, number: signal.Signals, workers: Sequence[int] = ()) -> None:
        """A signal to the process, first to these workers of it, as a scheduler signals all of a job."""
        for pid in (*workers, self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def running(self) -> bool:
        """Whether it has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self, seconds: float) -> int | None:
        """Its exit code (negative: the signal that ended it); None where it had to be killed."""
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until:
            time.sleep(0.02)
        hung = self.running()
        if hung:
            for pid in (*workers_of(self.pid), self.pid):
                os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return None if hung else code


def workers_of(pid: int) -> list[int]:
    """Process ids of its children, of those that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        if folder.name.isdecimal() and int(parent) == pid and state != "Z":
            found.append(int(folder.name))
    return sorted(found)
