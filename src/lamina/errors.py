"""The one error that is meant for users."""

from __future__ import annotations


class LaminaError(ValueError):
    """What is wrong and how to mend it, in one line; the command line prints it and exits with
    `exit_code`."""

    exit_code = 2
