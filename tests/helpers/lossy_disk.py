"""A folder on a disk that loses power: what was never synced is gone."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CALLS = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")


class Entry(NamedTuple):
    """A name in a folder: which file or folder it stands for."""

    inode: int
    folder: bool


class LossyDisk:
    """Follows the calls that change `root`, and rebuilds what a loss of power would leave of it.

    A name survives where its folder was synced after it was given, and bytes where their file was synced
    after they were written: the weakest promise of POSIX. `watch` is called after each of `CALLS`; meanwhile
    the calls of other threads wait.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, watch: Callable[[], None]) -> None:
        self.root, self._watch = root, watch
        self._names: dict[int, dict[str, Entry]] = {}
        self._bytes: dict[int, bytes] = {}
        self._held: dict[int, int] = {}
        self._busy, self._turn = False, threading.RLock()
        self._real = {name: getattr(os, name) for name in CALLS}
        for folder, _, files in os.walk(root):
            self._sync(self._open(Path(folder)))
            for name in files:
                self._sync(self._open(Path(folder, name)))
        for name in CALLS:
            monkeypatch.setattr(os, name, self._followed(name))

    def close(self) -> None:
        for handle in self._held.values():
            os.close(handle)
        self._held.clear()

    def after_power_loss(self, copy: Path) -> Path:
        """What is left of `root`, as a folder at `copy`."""
        self._rebuild(os.stat(self.root).st_ino, copy)
        return copy

    def _rebuild(self, inode: int, copy: Path) -> None:
        self._real["mkdir"](copy)
        for name, entry in self._names.get(inode, {}).items():
            if entry.folder:
                self._rebuild(entry.inode, copy / name)
            else:
                (copy / name).write_bytes(self._bytes.get(entry.inode, b""))

    def _followed(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self._turn:
                result = self._real[name](*arguments, **named)
                if not self._busy:
                    self._busy = True
                    try:
                        if name == "fsync":
                            self._sync(arguments[0])
                        self._watch()
                    finally:
                        self._busy = False
                return result

        return call

    def _sync(self, handle: int) -> None:
        status = os.fstat(handle)
        self._hold(status.st_ino, os.dup(handle))
        if not stat.S_ISDIR(status.st_mode):
            self._bytes[status.st_ino] = Path(f"/proc/self/fd/{handle}").read_bytes()
            return
        with os.scandir(handle) as entries:
            self._names[status.st_ino] = {e.name: Entry(e.inode(), e.is_dir()) for e in entries}
        for name, entry in self._names[status.st_ino].items():
            if entry.inode not in self._held:
                self._hold(entry.inode, os.open(name, os.O_RDONLY, dir_fd=handle))

    def _open(self, path: Path) -> int:
        handle = os.open(path, os.O_RDONLY)
        self._hold(os.fstat(handle).st_ino, handle)
        return handle

    def _hold(self, inode: int, handle: int) -> None:
        """Keep a file open, so that its number is given to no other one after it was removed."""
        if inode in self._held:
            os.close(handle) if handle != self._held[inode] else None
        else:
            self._held[inode] = handle
