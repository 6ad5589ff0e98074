"""The one file that holds all images of a pack, as it is written: each image behind the one before."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lamina.core.batch import Fault, Remark
from lamina.core.errors import LaminaError
from lamina.core.files import naming
from lamina.data.loading.dataloader import in_order
from lamina.data.pack.encode import Encoder, Entry, Way
from lamina.data.pack.source import Columns, Layout

Progress = Callable[[int, int, float], None]
_CHUNK = 8
"""Images that a worker hands over together: of 256 px and as pixels, about 2 MB."""
_ROW = 2 + len(Layout._fields)


@dataclass
class Written:
    """What stands in the blob."""

    jobs: array[int] = field(default_factory=lambda: array("q"))
    """Of each image its place among those that were to be packed."""
    shrunk: array[int] = field(default_factory=lambda: array("q"))
    """Which of them were shrunk."""
    ways: Counter[Way] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)
    """What could not be read, and is not in the blob."""
    remarks: list[Remark] = field(default_factory=list)
    original_bytes: int = 0
    n_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    _rows: array[int] = field(default_factory=lambda: array("q"))

    def columns(self) -> Columns:
        """Where and how the images are stored."""
        rows = np.frombuffer(self._rows, np.int64).reshape(-1, _ROW)
        return Columns(rows[:, :2].copy(), rows[:, 2:].astype(np.int32))

    def add(self, job: int, entry: Entry) -> None:
        """Count an entry that stands behind all others."""
        if entry.fault is not None:
            self.faults.append(entry.fault)
            return
        if entry.way is Way.SHRUNK:
            self.shrunk.append(len(self.jobs))
        self.jobs.append(job)
        self._rows.extend((self.n_bytes, len(entry.content), *entry.layout))
        self.n_bytes += len(entry.content)
        self.digest.update(entry.content)
        self.original_bytes += entry.original_bytes
        self.ways[entry.way] += 1
        self.remarks += entry.remarks


def write_blob(file: Path, encoder: Encoder, workers: int, progress: Progress | None) -> Written:
    """Write all images that can be read.

    Raises:
        LaminaError: where none can be read, or a worker dies.
        OSError: where the file cannot be written.
    """
    n = len(encoder.jobs)
    chunks = [range(i, min(i + _CHUNK, n)) for i in range(0, n, _CHUNK)]
    written, job = Written(), 0
    with naming(file), open(file, "wb") as opened:
        for entries in in_order(encoder, chunks, workers if n > 2 * _CHUNK else 0):
            for entry in entries:
                opened.write(entry.content)
                written.add(job, entry)
                job += 1
            if progress is not None:
                progress(job, n, 0.0)
    if not written.jobs:
        first = written.faults[0]
        raise LaminaError(f"none of the {n} images can be read, e.g. {first.name}: {first.reason}")
    return written
