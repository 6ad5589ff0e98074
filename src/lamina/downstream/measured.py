"""What was measured part by part, on disk after each, so that it is never measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError
from lamina.evaluate.confusion import Confusion
from lamina.files import check_writable
from lamina.plain_files import DamagedFile
from lamina.records import as_json, read_object, write_json

FILE = "measured.json"


class MeasuredParts:
    """How many of how many images were right, by the part's name; `folder` None keeps them in memory
    alone."""

    def __init__(
        self,
        file: Path | None,
        settings: Mapping[str, Any],
        parts: dict[str, tuple[int, int]],
        confusions: dict[str, Confusion] | None = None,
    ) -> None:
        self._file, self._settings, self._parts = file, dict(settings), parts
        self._confusions = confusions or {}

    @classmethod
    def open(cls, folder: Path | None, settings: Mapping[str, Any], overwrite: bool = False) -> MeasuredParts:
        """What the folder holds of a measurement with these settings; nothing where there is none, or
        `overwrite`.

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
        except DamagedFile:
            raise
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DamagedFile(file, "it is not what lamina writes", mend) from None
        now = as_json(settings)
        if changed := sorted(k for k in {**before, **now} if before.get(k) != now.get(k)):
            raise LaminaError(
                f"{file} holds a measurement with other settings ({', '.join(changed)}); replace it with "
                "--overwrite, or choose another --out"
            )
        return cls(file, settings, parts, confusions)

    def kept(self, parts: Sequence[str]) -> str:
        """What an interruption leaves of these parts, and how to go on."""
        done = sum(part in self for part in parts)
        if self._file is None:
            return f"{done} parts were measured and nothing is kept; give --out FOLDER"
        return f"{done} parts are kept in {self._file}: the same command goes on from there"

    def __contains__(self, part: str) -> bool:
        return part in self._parts

    def add(self, part: str, right: int, n: int, confusion: Confusion | None = None) -> None:
        """Keep a part, and which classes its images were taken for where that is of interest."""
        self._parts[part] = (right, n)
        if confusion is not None:
            self._confusions[part] = confusion
        if self._file is not None:
            confusions = {name: found.to_json() for name, found in self._confusions.items()}
            content = {"settings": self._settings, "parts": self._parts, "confusions": confusions}
            write_json(self._file, content)

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
