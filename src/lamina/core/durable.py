"""Files that are either whole or absent: sync to the disk, rename into place, and digests to prove it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lamina.core.files import naming, patiently
from lamina.core.plain_files import open_plain
from lamina.core.records import parse_json

TEMPORARY = ".unfinished-"


def sync(path: Path) -> None:
    """Make what was written to a file, or a folder's list of names, survive a loss of power.

    Folders are left alone where the system or the file system knows no such call: Windows, whose NTFS keeps a
    log of names, and some network file systems.
    """
    folder = path.is_dir()
    if folder and not hasattr(os, "O_DIRECTORY"):  # Windows does not open folders
        return
    # Windows syncs only what was opened for writing.
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder with all that it lies in, so that their names survive a loss of power."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def sha256(path: Path) -> str:
    """The SHA-256 of a plain file's content, in hexadecimal; raises as `open_plain`."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_text(path: Path, text: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(TEMPORARY + path.name)
    try:
        with naming(path):
            temporary.write_bytes(text.encode() if isinstance(text, str) else text)
            sync(temporary)
            patiently(lambda: os.replace(temporary, path))
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace_folder(temporary: Path, path: Path) -> None:
    """Rename a finished folder to its name in the same parent, in place of one that is there already."""
    if path.exists():
        remove_folder(path)
    patiently(lambda: os.rename(temporary, path))
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Take a folder's name away first, then its files, so that it is never seen in parts."""
    aside = path.with_name(f"{TEMPORARY}old-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    patiently(lambda: os.rename(path, aside))
    shutil.rmtree(aside, ignore_errors=True)


def sealed(content: dict[str, Any]) -> str:
    """JSON text that holds its own SHA-256, so that no changed byte of it goes unseen."""
    body = json.dumps(content, indent=1, sort_keys=True)
    seal = hashlib.sha256(body.encode()).hexdigest()
    return json.dumps({**content, "seal": seal}, indent=1, sort_keys=True) + "\n"


def unsealed(text: bytes) -> dict[str, Any] | None:
    """The content of a `sealed` text; None where a byte of it was changed."""
    try:
        content = parse_json(text)
        content.pop("seal")
        intact = sealed(content).encode() == text
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return dict(content) if intact else None
