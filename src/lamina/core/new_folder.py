"""A new folder that appears under its name when it is complete, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.files import TEMPORARY, replace_folder, sync
from lamina.core.locking import LOCK, one_writer


@contextmanager
def new_folder(out: Path, marker: str, kind: str) -> Iterator[Path]:
    """A hidden folder beside `out` to write to, renamed to `out` at the end; after an error nothing stays.

    What a process that was killed left in it is removed. All files survive a loss of power from the end on.

    Args:
        out: where the folder will be; an empty one may be there.
        marker: the file by which a folder of that kind is known.
        kind: what such a folder is called in errors, such as "pack".

    Raises:
        LaminaError: where something is there already, or another process writes the same.
        OSError: where it cannot be written.
    """
    if out.is_dir() and (out / marker).exists():
        raise LaminaError(f"{out} already holds a {kind}; choose another --out, or remove it first")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LaminaError(f"{out} exists and is not a {kind}; choose another --out")
    made = [folder for folder in out.parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(TEMPORARY + out.name)
    try:
        temporary.mkdir(exist_ok=True)
        with one_writer(temporary, f"the {kind} in {out}"):
            _empty(temporary)
            try:
                yield temporary
            except BaseException:
                _empty(temporary)
                raise
            for entry in temporary.iterdir():
                if entry.name != LOCK:
                    sync(entry)
        sync(temporary)
        replace_folder(temporary, out)
    finally:
        with suppress(OSError):  # it is not there any more, or is another process's
            temporary.rmdir()
            for folder in made:
                folder.rmdir()


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()
