"""The error that is meant for users, and the note on a computation that they interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LaminaError(ValueError):
    """What is wrong and how to mend it, in one line; the command line prints it and ends with
    `exit_code`."""

    exit_code = 2


class RangeError(LaminaError):
    """A number out of the range of its option. The sentence begins with the name of the option; code that has
    the name of its group puts that before it."""


@contextmanager
def noted_on_interrupt(
    sentence: Callable[[], str], also: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """On Ctrl-C (and on `also`) add a note to the exception: what was finished, what of it is kept, and how
    to go on. The command line prints the notes."""
    kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt, *also)
    try:
        yield
    except kinds as stop:
        if note := sentence():
            stop.add_note(note)
        raise
