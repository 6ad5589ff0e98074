"""The one error that is meant for users, and what is said where they interrupt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LaminaError(ValueError):
    """What is wrong and how to mend it, in one line; the command line prints it and exits with
    `exit_code`."""

    exit_code = 2


class RangeError(LaminaError):
    """A number out of the range of its option. The sentence begins with the option's name, and who knows the
    group of the option writes that before it."""


@contextmanager
def noted_on_interrupt(told: Callable[[], str], also: tuple[type[BaseException], ...] = ()) -> Iterator[None]:
    """On Ctrl-C (and on `also`) the sentence of `told` is noted on the exception: what was finished, what of
    it is kept, and how to go on. The command line prints the notes."""
    kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt, *also)
    try:
        yield
    except kinds as stop:
        if sentence := told():
            stop.add_note(sentence)
        raise
