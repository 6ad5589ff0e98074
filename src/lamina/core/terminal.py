"""Standard output and standard error that may be lost while a program runs, without ending it.

A reader of a pipe goes away (`| head`), the disk of a log is full, a terminal hangs up: what is printed from
then on is dropped, and the reason is kept. The computation goes on as if the output had been written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class TolerantStream:
    """A text stream that drops what cannot be written; `lost` says why, from the first failure on.

    Characters that the stream's encoding lacks are written as escapes. Everything else (`isatty`, `fileno`,
    `encoding`) is the stream's own.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: OSError | ValueError | None = None

    def write(self, text: str) -> int:
        """Write text, or drop it; never raises for the stream's sake."""
        if self.lost is None:
            try:
                self._write(text)
            except BlockingIOError:  # a terminal in non-blocking mode that is busy: this text alone
                pass
            except (OSError, ValueError) as error:  # ValueError: a closed file
                self.lost = error
        return len(text)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError as error:
            self.stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def flush(self) -> None:
        """Hand over what is buffered, or drop it."""
        if self.lost is None:
            try:
                self.stream.flush()
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                self.lost = error

    def isatty(self) -> bool:
        """Whether the stream is a terminal; False once the stream is lost."""
        with suppress(OSError, ValueError):
            return self.lost is None and self.stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def tolerant_output() -> Iterator[None]:
    """While this lasts, nothing written to sys.stdout and sys.stderr raises; contexts may be nested."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_tolerant(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _tolerant(stream: TextIO | None) -> Any:
    """The stream as it is where it is tolerant already; nowhere, where there is none (`>&-`)."""
    if getattr(stream, "lost", False) is not False:
        return stream
    return TolerantStream(open(os.devnull, "w", encoding="utf-8") if stream is None else stream)


def lost_output() -> OSError | ValueError | None:
    """Why standard output can no longer be written, inside `tolerant_output`; None while it can."""
    return getattr(sys.stdout, "lost", None)


def why(error: BaseException) -> str:
    """The reason of an error in one line, without its number: "Broken pipe"."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__


def take_closed_descriptors() -> None:
    """Open /dev/null where descriptors 0, 1 and 2 are closed, or the next file that is opened would take the
    number, and what a library prints would be written into it."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def finish_output() -> OSError | ValueError | None:
    """Flush both streams at the end of a program, and say why standard output was lost, if it was.

    What a lost stream still holds goes to /dev/null, or Python would try again when it ends, and change the
    exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        if getattr(stream, "lost", None) is not None:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return lost_output()
