"""Rendered frames in one file: written whole, checked when opened, read by memory map."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lamina.core.files import replacing
from lamina.data.samples.doom.render import MOST_OBJECTS

NO_KIND = 255


def record_type(size: tuple[int, int]) -> np.dtype[np.void]:
    """One frame of (height, width) px with all that is known of it, and a checksum of that."""
    return np.dtype(
        [
            ("image", "u1", (*size, 3)),
            ("surface", "u1", size),
            ("depth", "u1", size),
            ("kinds", "u1", (MOST_OBJECTS,)),
            ("scene", "u1"),
            ("map", "u1"),
            ("place", "<i2", (2,)),
            ("yaw", "<f4"),
            ("crc32", "<u4"),
        ]
    )


def write_records(file: Path, records: Iterable[np.void], count: int, size: tuple[int, int]) -> None:
    """A .npy file of `count` records, there when it is whole; raises OSError."""
    kind = record_type(size)
    header = {
        "descr": np.lib.format.dtype_to_descr(kind),
        "fortran_order": False,
        "shape": (count,),
    }
    with replacing(file) as temporary, open(temporary, "wb") as out:
        np.lib.format.write_array_header_2_0(out, header)
        for record in records:
            record["crc32"] = _checksum(record)
            out.write(record.tobytes())


def _checksum(record: np.void) -> int:
    return zlib.crc32(record.tobytes()[:-4])


class Records:
    """The records of some files, one after the other; each process maps the files for itself."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.files = tuple(files)
        self._maps: list[np.ndarray[Any, np.dtype[np.void]]] | None = None
        self._starts = np.cumsum([0, *(len(each) for each in self._opened())])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> np.void:
        i = range(len(self))[i]
        part = int(np.searchsorted(self._starts, i, side="right")) - 1
        found: np.void = self._opened()[part][i - int(self._starts[part])]
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_maps": None}  # another process opens the files instead of getting a copy

    def column(self, name: str) -> np.ndarray[Any, Any]:
        """One field of all records."""
        return np.concatenate([each[name] for each in self._opened()])

    def _opened(self) -> list[np.ndarray[Any, np.dtype[np.void]]]:
        if self._maps is None:
            self._maps = [np.load(file, mmap_mode="r", allow_pickle=False) for file in self.files]
        return self._maps


def is_whole(file: Path, count: int, size: tuple[int, int]) -> bool:
    """Whether the file has these records, undamaged."""
    try:
        records = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError):  # numpy reads the header as a Python literal
        return False
    if records.shape != (count,) or records.dtype != record_type(size):
        return False
    return all(int(record["crc32"]) == _checksum(record) for record in records)
