"""Writing a file so that a reader sees the old one or the new one, never half of it."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(file: Path, content: bytes) -> None:
    """Write beside the file, then rename over it. Raises OSError; the temporary file does not stay.

    Nothing waits for the disk: what a report consists of can be made again.
    """
    temporary = file.with_name(f".{file.name[:80]}.{os.getpid()}.tmp")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
