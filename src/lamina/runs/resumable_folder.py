"""A folder that one command fills: begun, gone on with, replaced or refused, and never by two at a time."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.files import TEMPORARY, patiently, sync
from lamina.core.locking import LOCK, one_writer
from lamina.core.text import printable
from lamina.train.callbacks import Callback
from lamina.train.distributed import Ranks, is_main, on_main, restarts

FolderOnMain = AbstractContextManager["ResumableFolder | None"]
"""What `opened_on_main` gives."""
ASIDE = ".replaced"
"""Where the old content waits until the new one has taken its first step."""
_MOVING = ".replacing"
PICTURES = "pictures"
"""Folder of a run that only its own process writes into."""
_TRASH = f"{TEMPORARY}replaced"
_LEFT_OVER = re.compile(rf"{re.escape(TEMPORARY)}.*|\..*\.\d+\.tmp")
"""What a process that was killed leaves behind (see `lamina.core.files`)."""


class ResumableFolder:
    """One folder while a process may write into it; made by `opened`.

    Args:
        path: the folder; it is there.
        exists: whether what the folder holds is of this kind.
        kind: what such a folder is called in errors: "run", "evaluation".
    """

    def __init__(self, path: Path, exists: Callable[[], bool], kind: str) -> None:
        self.path, self.exists, self.kind = path, exists, kind
        self._begun = self._started = False
        self._recover()

    def check(self, resume: bool, overwrite: bool) -> None:
        """Refuse a folder that holds something else, or one of this kind that is neither to go on nor to be
        replaced."""
        if resume and overwrite:
            raise LaminaError("--resume goes on with what --overwrite would replace; give one of them")
        if not self._content():
            return
        if not self.exists():
            raise LaminaError(f"{self.path} exists and is not {_a(self.kind)}; choose another --out")
        if not resume and not overwrite:
            raise LaminaError(
                f"{self.path} already holds {_a(self.kind)}; go on with --resume, replace it with "
                "--overwrite, or choose another --out"
            )
        if overwrite and restarts():
            raise LaminaError(
                f"torchrun has started the ranks again, and --overwrite would delete the {self.kind} in "
                f"{self.path} that they began before; give --resume in place of it, which begins one where "
                "there is none"
            )

    def begin(self) -> None:
        """Make room for something new: what is there is set aside until `started`."""
        self._begun = True
        if not (old := self._content()):
            return
        moving = self.path / _MOVING
        moving.mkdir()
        for entry in old:
            _rename(entry, moving / entry.name)
        _rename(moving, self.path / ASIDE)
        sync(self.path)

    def started(self) -> None:
        """The new one computes: what was set aside is removed."""
        if self._begun and not self._started and (self.path / ASIDE).is_dir():
            _rename(self.path / ASIDE, self.path / _TRASH)
            shutil.rmtree(self.path / _TRASH, ignore_errors=True)
        self._started = True

    def settle(self) -> None:
        """At the end: what began and never started goes, and what was there before comes back."""
        if not self._begun or self._started:
            return
        if (self.path / ASIDE).is_dir():
            self._recover()
            print(printable(f"the {self.kind} that was in {self.path} is kept"), file=sys.stderr)
        else:
            self._remove(self._content())

    def _recover(self) -> None:
        """Put back what a process that was killed had set aside, and remove its temporary files."""
        aside, moving = self.path / ASIDE, self.path / _MOVING
        if aside.is_dir():
            self._remove(self._content())
            _rename(aside, moving)
        if moving.is_dir():
            for entry in moving.iterdir():
                _rename(entry, self.path / entry.name)
            moving.rmdir()
        folders = [folder for folder in (self.path, self.path / PICTURES) if folder.is_dir()]
        entries = [entry for folder in folders for entry in folder.iterdir()]
        self._remove([entry for entry in entries if _LEFT_OVER.fullmatch(entry.name)])

    def _content(self) -> list[Path]:
        """All that is no file of this class."""
        own = (LOCK, ASIDE, _MOVING)
        return [e for e in self.path.iterdir() if e.name not in own and not _LEFT_OVER.fullmatch(e.name)]

    def _remove(self, entries: list[Path]) -> None:
        for entry in entries:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


class Started(Callback):
    """Tells a folder when the training in it has taken its first step."""

    required = True

    def __init__(self, folder: ResumableFolder) -> None:
        self.folder = folder

    def on_first_step(self) -> None:
        """What was there before may go."""
        self.folder.started()


@contextmanager
def opened(path: Path, exists: Callable[[], bool], kind: str) -> Iterator[ResumableFolder]:
    """Make the folder and hold its lock; at the end a folder that was made and stayed empty is removed.

    Raises:
        LaminaError: where it is a file, or another process writes into it.
        OSError: where it cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise LaminaError(f"{path} exists and is not {_a(kind)}; choose another --out")
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        with one_writer(path, f"the {kind} in {path}"):
            folder = ResumableFolder(path, exists, kind)
            try:
                yield folder
            finally:
                folder.settle()
    finally:
        with suppress(OSError):  # it is not empty
            for empty in made:
                empty.rmdir()


@contextmanager
def opened_on_main(
    ranks: Ranks, path: Path, exists: Callable[[], bool], kind: str, *, resume: bool, overwrite: bool
) -> Iterator[ResumableFolder | None]:
    """`opened` and checked on rank 0, while the others wait and get None; all raise where it is refused."""
    with ExitStack() as stack:

        def enter() -> ResumableFolder:
            folder = stack.enter_context(opened(path, exists, kind))
            folder.check(resume, overwrite)
            return folder

        yield on_main(ranks, enter)


@contextmanager
def opened_to_go_on(path: Path, marker: Path, kind: str) -> Iterator[None]:
    """`opened` on the main rank, for a folder that a command goes on with whenever it is called again;
    `marker` is the file by which it is known."""
    if not is_main():
        yield
        return
    with opened(path, marker.is_file, kind) as folder:
        folder.check(resume=True, overwrite=False)
        yield


def begin_on_main(ranks: Ranks, folder: ResumableFolder | None, write: Callable[[], object]) -> None:
    """On rank 0, while the others wait: make room, and `write` what the new one is."""

    def begin() -> None:
        assert folder is not None
        folder.begin()
        write()

    on_main(ranks, begin)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _rename(old: Path, new: Path) -> None:
    patiently(lambda: os.rename(old, new))
