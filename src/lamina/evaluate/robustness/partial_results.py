"""Results of a measurement on disk after each of its parts, so that no part is measured twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.core.locking import one_writer
from lamina.core.records import as_json, expected_content, read_object, write_json
from lamina.evaluate.confusion import Confusion
from lamina.runs.same_settings import check_same_settings
from lamina.train.distributed import is_main

FILE = "measured.json"
LATER = ("probe_images",)
"""Settings that files of earlier versions do not hold."""


class PartialResults:
    """For each part, by its name, the number of images, the number of right ones, and a digest of the
    images."""

    def __init__(self, file: Path | None, settings: Mapping[str, Any]) -> None:
        self._file, self._settings = file, dict(settings)
        self._parts: dict[str, tuple[int, int]] = {}
        self._confusions: dict[str, Confusion] = {}
        self._images: dict[str, str] = {}

    @classmethod
    @contextmanager
    def opened(
        cls, folder: Path | None, settings: Mapping[str, Any], overwrite: bool = False
    ) -> Iterator[PartialResults]:
        """The results in a folder of a measurement with these settings, while no other process may write
        there; none where the folder holds none, or with `overwrite`.

        `folder` None keeps the results in memory alone.

        Raises:
            LaminaError: where the folder holds a measurement with other settings, cannot be written, or
                another process writes into it.
        """
        if folder is None:
            yield cls(None, settings)
            return
        file = folder / FILE
        check_writable(file)
        with one_writer(folder, f"the measurement in {folder}") if is_main() else nullcontext():
            found = cls(file, settings)
            if file.is_file() and not overwrite:
                found._read(file)
            yield found

    def _read(self, file: Path) -> None:
        mend = "restore it from a copy, or measure anew with --overwrite"
        with expected_content(file, mend):
            content = read_object(file, mend=mend)
            before = dict(content["settings"])
            self._parts = {name: (int(right), int(n)) for name, (right, n) in content["parts"].items()}
            for name, fields in content.get("confusions", {}).items():
                if (confusion := Confusion.read(fields)) is not None:
                    self._confusions[name] = confusion
            self._images = {str(name): str(digest) for name, digest in content.get("images", {}).items()}
        mend = "replace it with --overwrite, or choose another --out"
        check_same_settings(before, as_json(self._settings), f"{file} holds a measurement", mend, LATER)

    def progress_note(self, parts: Sequence[str]) -> str:
        """A sentence on what an interruption leaves of these parts, and how to go on."""
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
        """Write a part, with its confusion matrix where that is of use, and the digest of its images."""
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
        """The confusion matrix of a part; None where it was not kept."""
        return self._confusions.get(part)

    def counts(self, part: str) -> tuple[int, int]:
        """The number of right images, and the number of all."""
        return self._parts[part]

    def error(self, part: str) -> float:
        """The share that was wrong."""
        right, n = self._parts[part]
        return 1 - right / n
