"""What a page says of files that it could not show."""

from __future__ import annotations

from types import TracebackType

from lamina.core.plain_files import DamagedFile

MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError)
"""What reading JSON of another form than expected raises."""


class LeftOut:
    """A `with` in which `what` is read: one that is missing is passed over; one that is damaged, or has
    another form than expected, is passed over with a note that says so, and why."""

    def __init__(self, what: str, notes: list[str]) -> None:
        self.what, self.notes = what, notes

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, DamagedFile):
            file = "" if error.file.name in self.what else f"{error.file.name}: "
            self.notes.append(f"{self.what} was left out: {file}{error.reason}")
        elif isinstance(error, (OSError, *MALFORMED)) and not isinstance(error, FileNotFoundError):
            self.notes.append(
                f"{self.what} could not be read and was left out ({type(error).__name__}: {error})"
            )
        return isinstance(error, (OSError, DamagedFile, *MALFORMED))
