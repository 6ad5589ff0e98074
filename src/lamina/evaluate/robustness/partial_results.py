"""What was measured part by part, on disk after each, so that it is never measured again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.core.locking import one_writer
from lamina.core.plain_files import DamagedFile
from lamina.core.records import as_json, read_object, write_json
from lamina.evaluate.confusion import Confusion
from lamina.runs.same_settings import check_same_settings
from lamina.train.distributed import is_main

FILE = "measured.json"
LATER = ("probe_images",)
"""Settings that files of earlier versions do not hold."""


class PartialResults:
    """How many of how many images were right, by the part's name, and a digest of those images."""

    def __init__(
        self,
        file: Path | None,
        settings: Mapping[str, Any],
        parts: dict[str, tuple[int, int]],
        confusions: dict[str, Confusion] | None = None,
        images: dict[str, str] | None = None,
    ) -> None:
        self._file, self._settings, self._parts = file, dict(settings), parts
        self._confusions, self._images = confusions or {}, images or {}

    @classmethod
    @contextmanager
    def opened(
        cls, folder: Path | None, settings: Mapping[str, Any], overwrite: bool = False
    ) -> Iterator[PartialResults]:
        """`open`, while no other process may write into the folder.

        Raises:
            LaminaError: as `open`, and where another process writes into it.
        """
        if folder is not None:
            check_writable(folder / FILE)
        locked = folder is not None and is_main()
        what = f"the measurement in {folder}"
        with one_writer(folder, what) if folder is not None and locked else nullcontext():
            yield cls.open(folder, settings, overwrite)

    @classmethod
    def open(
        cls, folder: Path | None, settings: Mapping[str, Any], overwrite: bool = False
    ) -> PartialResults:
        """What the folder holds of a measurement with these settings; nothing where there is none, or
        `overwrite`. `folder` None keeps the parts in memory alone.

        Raises:
            LaminaError: where it holds one with other settings, or cannot be written.
        """
        if folder is None:
            return cls(None, settings, {})
        file = folder / FILE
        check_writable(file)
        if overwrite or not file.is_file():
            return cls(file, settings, {})
        mend = "restore it from a copy, or measure anew with --overwrite"
        try:
            content = read_object(file, mend=mend)
            before, parts = (
                content["settings"],
                {k: (int(r), int(n)) for k, (r, n) in content["parts"].items()},
            )
            found = {name: Confusion.read(each) for name, each in content.get("confusions", {}).items()}
            confusions = {name: each for name, each in found.items() if each is not None}
            images = {str(name): str(each) for name, each in content.get("images", {}).items()}
        except DamagedFile:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedFile(file, "it is not what lamina writes", mend) from None
        now = as_json(settings)
        mend = "replace it with --overwrite, or choose another --out"
        check_same_settings(before, now, f"{file} holds a measurement", mend, LATER)
        return cls(file, settings, parts, confusions, images)

    def kept(self, parts: Sequence[str]) -> str:
        """What an interruption leaves of these parts, and how to go on."""
        done = sum(part in self for part in parts)
        if self._file is None:
            return f"{done} parts were measured and nothing is kept; give --out FOLDER"
        return f"{done} parts are kept in {self._file}: the same command goes on from there"

    def __contains__(self, part: str) -> bool:
        return part in self._parts

    def check(self, part: str, images: str) -> str:
        """See that a part, where it is kept, was measured on the images of that digest.

        Returns:
            A remark where it does not say so, as parts of earlier versions; else "".

        Raises:
            LaminaError: where it was measured on others.
        """
        if part not in self or (before := self._images.get(part)) == images:
            return ""
        if before is None:
            return (
                f"{self._file} does not say which images were measured; they are taken to be those of now "
                "(--overwrite measures anew)"
            )
        raise LaminaError(
            f"{self._file} holds {part} of other images of the same name; restore them, replace it with "
            "--overwrite, or choose another --out"
        )

    def add(
        self, part: str, right: int, n: int, confusion: Confusion | None = None, images: str = ""
    ) -> None:
        """Keep a part, which classes its images were taken for where that is of interest, and their
        digest."""
        self._parts[part] = (right, n)
        if images:
            self._images[part] = images
        if confusion is not None:
            self._confusions[part] = confusion
        if self._file is not None:
            confusions = {name: found.to_json() for name, found in self._confusions.items()}
            content = {"settings": self._settings, "parts": self._parts, "confusions": confusions}
            write_json(self._file, {**content, "images": self._images})

    def confusion(self, part: str) -> Confusion | None:
        """Which classes a part's images were taken for; None where that was not kept."""
        return self._confusions.get(part)

    def counts(self, part: str) -> tuple[int, int]:
        """How many were right, of how many."""
        return self._parts[part]

    def error(self, part: str) -> float:
        """The share that was wrong."""
        right, n = self._parts[part]
        return 1 - right / n
