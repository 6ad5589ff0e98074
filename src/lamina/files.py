"""Writing a file so that a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.errors import LaminaError


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, renamed over it at the end; after an error nothing of it stays.

    Folders on the way are made. Nothing waits for the disk: what is written so can be made again.

    Raises:
        OSError: where the file cannot be written.
    """
    temporary = _beside(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(file: Path, content: bytes | str) -> None:
    """Put `content` (text as UTF-8) in the place of what was there. Raises OSError."""
    with replacing(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def check_writable(file: Path) -> None:
    """Make sure, before a long computation, that its result can be written to `file`; makes its folder.

    Raises:
        LaminaError: where it cannot.
    """
    probe = _beside(file)
    try:
        if file.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        if file.parent.exists() and not file.parent.is_dir():
            raise NotADirectoryError(None, f"{file.parent} is no folder")
        file.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LaminaError(f"{file} cannot be written: {error.strerror or error}; choose another") from None


def _beside(file: Path) -> Path:
    return file.with_name(f".{file.name[:40]}.{os.getpid()}.tmp")
