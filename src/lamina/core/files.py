"""Writing a file or a folder so that a reader sees the old one or the new one, never half of it.

`write_atomically` does not wait for the disk; `replace_text` and `replace_folder` survive a loss of power."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lamina.core.errors import LaminaError

PATIENCE_SECONDS = 2.0
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{kind}{i}" for kind in ("COM", "LPT") for i in range(1, 10))}
TEMPORARY = ".unfinished-"
"""How names of files and folders begin that are not finished yet."""
STALE_SECONDS = 3600.0
"""Age at which a temporary file is one that its process, killed, left behind."""


def patiently(rename: Callable[[], object]) -> None:
    """Rename; on Windows, where a file that another program has open cannot be renamed or replaced, again and
    again for `PATIENCE_SECONDS`: virus scanners and viewers let go of it. Raises OSError."""
    last = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            rename()
            return
        except PermissionError:
            if os.name != "nt" or time.monotonic() > last:
                raise
            time.sleep(0.05)


def portable_name(text: str) -> str:
    """The text as a file's name that each system takes: Linux, macOS and Windows.

    Characters that one of them refuses become "-", a dot or space at the end goes, and names of devices of
    Windows (CON, NUL, COM1, ...) get "_" before them. "file" where nothing is left.
    """
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", text).rstrip(" .") or "file"
    return f"_{name}" if name.split(".")[0].rstrip().upper() in _DEVICES else name


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Errors of the system that name no file (a disk that is full while a file is open) get this one's name;
    so do those of safetensors, which are none of the system's."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(None, " ".join(str(error).split()), str(file)) from error
    except OSError as error:
        if error.filename is None and error.errno is not None:  # without a number, its text would be lost
            error.filename = str(file)
        raise


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, renamed over it at the end; after an error nothing of it stays.

    Folders on the way are made. Nothing waits for the disk: what is written so can be made again.

    Raises:
        OSError: where the file cannot be written.
    """
    temporary = _beside(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(file)
    try:
        with naming(file):
            yield temporary
            patiently(lambda: temporary.replace(file))
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(file: Path, content: bytes | str) -> None:
    """Put `content` (text as UTF-8) in the place of what was there. Raises OSError."""
    with replacing(file) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


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


def json_text(content: Any, indent: int = 1) -> str:
    """JSON for people too: indented, but a list of numbers on one line."""
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    # Only the text between values has line feeds: what strings hold stays as it is.
    numbers = r"\[\n\s*(-?[\d.eE+-]+(?:,\n\s*-?[\d.eE+-]+)*)\n\s*\]"
    return re.sub(numbers, lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


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


def _remove_stale(file: Path) -> None:
    """Remove what processes that were killed while they wrote this file left beside it."""
    ours = re.compile(rf"\.{re.escape(file.name[:40])}\.\d+\.tmp")
    oldest = time.time() - STALE_SECONDS
    for name in os.listdir(file.parent):
        if ours.fullmatch(name):
            with suppress(OSError):  # another process did it
                if (file.parent / name).stat().st_mtime < oldest:
                    (file.parent / name).unlink()
