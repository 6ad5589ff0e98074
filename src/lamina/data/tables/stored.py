"""Images that are kept in the rows of parquet files, read by their row."""

from __future__ import annotations

import hashlib
import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from lamina.data.columns import Numbers, SharedArray
from lamina.data.decode.decode import open_regular
from lamina.data.decode.limits import Stream
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.digest import files_digest, placed_state
from lamina.data.sources import EncodedSource
from lamina.data.tables.columns import Column
from lamina.data.tables.parquet_file import ParquetTable, import_parquet

KEPT_BYTES = 256 << 20
"""Bytes of images that each process keeps, so that a row group is not decompressed for each of its rows."""
_BUFFER = 1 << 20
_FOOTERS = 256
"""Files whose footers, which say where their columns are, each process keeps."""
_ROWS_AT_ONCE = 16
"""Rows that are read together of a row group that is larger than that."""


class RowGroups:
    """Cells of one column by their rows; the row groups that were read last are kept, up to `KEPT_BYTES`.

    Nothing of it but the places is copied into other processes.
    """

    def __init__(self, table: ParquetTable, column: Column) -> None:
        groups = [
            (file, i, group.num_rows, _n_bytes(group, column.name))
            for file, metadata in enumerate(table.metadata)
            for i, group in enumerate(map(metadata.row_group, range(metadata.num_row_groups)))
        ]
        self.files, self._column = table.files, column.name
        self._groups: Int64[NDArray[np.int64], "G 4"] = np.array(groups, np.int64).reshape(-1, 4)
        self._ends = np.cumsum(self._groups[:, 2])
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._footers: dict[str, tuple[tuple[int, int], Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_footers": {}}

    def forget(self) -> None:
        """Keep no row groups any longer."""
        self._kept.clear()

    @property
    def largest_bytes(self) -> int:
        """Bytes of the images in the largest row group."""
        return int(self._groups[:, 3].max(initial=0))

    def files_of(self, rows: Int64[NDArray[np.int64], "N"]) -> list[str]:
        """The files that rows are in, each once, in their order."""
        places = np.searchsorted(self._ends, rows, "right")
        return [self.files[number] for number in np.unique(self._groups[places, 0]).tolist()]

    def cell(self, row: int) -> Any:
        """The cell of a row: bytes, or a mapping; raises `Unreadable` where the file does not have it."""
        place = int(np.searchsorted(self._ends, row, "right"))
        inside = row - int(self._ends[place] - self._groups[place, 2])
        try:
            cell = self._cell(place, inside)
        except (Unreadable, KeyboardInterrupt):
            raise
        except Exception as error:  # a file that was changed under a run, or is damaged
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise Unreadable(Reason.BROKEN, first[:200]) from None
        return cell.as_py()

    def _cell(self, place: int, inside: int) -> Any:
        if place in self._kept:
            self._kept.move_to_end(place)
            return self._kept[place][inside]
        if self._groups[place, 3] > KEPT_BYTES:
            for first, cells in self._pieces(place):
                if inside < first + len(cells):
                    return cells[inside - first]
            raise Unreadable(Reason.BROKEN, "the file has fewer rows than before")
        with self._open(place) as file:
            group = int(self._groups[place, 1])
            cells = file.read_row_group(group, [self._column], use_threads=False)
        kept = sum(int(self._groups[each, 3]) for each in self._kept)
        while self._kept and kept + self._groups[place, 3] > KEPT_BYTES:
            kept -= int(self._groups[self._kept.popitem(last=False)[0], 3])
        self._kept[place] = cells.column(0)
        return self._kept[place][inside]

    def _pieces(self, place: int) -> Iterator[tuple[int, Any]]:
        first, group = 0, int(self._groups[place, 1])
        with self._open(place) as file:
            batches = file.iter_batches(_ROWS_AT_ONCE, [group], [self._column], use_threads=False)
            for batch in batches:
                yield first, batch.column(0)
                first += batch.num_rows

    @contextmanager
    def _open(self, place: int) -> Iterator[Any]:
        path = self.files[int(self._groups[place, 0])]
        with open_regular(path) as file:  # which says what is wrong, and waits for no pipe
            found = os.fstat(file.fileno())
        state, parquet = (found.st_size, found.st_mtime_ns), import_parquet()
        known, footer = self._footers.get(path, (None, None))
        footer = footer if known == state else None
        with parquet.ParquetFile(path, metadata=footer, buffer_size=_BUFFER) as opened:
            if opened.metadata.row_group(int(self._groups[place, 1])).num_rows != self._groups[place, 2]:
                raise Unreadable(Reason.BROKEN, "the file around it has changed")
            if known != state:
                if len(self._footers) >= _FOOTERS:
                    self._footers.clear()
                self._footers[path] = (state, opened.metadata)
            yield opened


def _n_bytes(group: Any, column: str) -> int:
    """Bytes of a column in a row group, decompressed."""
    parts = [group.column(i) for i in range(group.num_columns)]
    return sum(
        part.total_uncompressed_size
        for part in parts
        if part.path_in_schema == column or part.path_in_schema.startswith(column + ".")
    )


class StoredSource(EncodedSource):
    """Images whose files' bytes are the cells of a table; a cell with a path alone is that file.

    Args:
        groups: the cells.
        folder: what such paths are relative to.
        rows: of each image its row.
        names, labels, class_names, and others: as `Source`.
    """

    def __init__(
        self,
        groups: RowGroups,
        folder: str,
        rows: Int64[NDArray[np.int64], "N"],
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
        multi_labels: Bool[NDArray[np.bool_], "N K"] | None = None,
    ) -> None:
        super().__init__(
            names, labels, class_names, multi_labels=multi_labels, notes=notes, no_labels=no_labels
        )
        self.groups, self.folder, self.rows = groups, folder, Numbers(SharedArray(rows))

    def open(self, i: int) -> Stream:
        """The bytes of image i; raises `Unreadable` where the file is gone or was changed, and for an empty
        cell."""
        cell = self.groups.cell(self.rows[i])
        if isinstance(cell, dict):
            if cell.get("bytes") is None and cell.get("path"):
                return open_regular(os.path.join(self.folder, cell["path"]))
            cell = cell.get("bytes")
        if cell is None:
            raise Unreadable(Reason.EMPTY, "an empty cell")
        return io.BytesIO(cell)

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of the files, and of the rows."""
        rows = self.rows.at(indices).values
        digest = hashlib.sha256()
        for path in self.groups.files_of(rows):
            digest.update(placed_state(path))
        digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the files' sizes and of bytes at both of their ends, and of the rows."""
        rows = self.rows.at(indices).values
        files = self.groups.files_of(rows)
        digest = hashlib.sha256(files_digest(files, len(files)))
        digest.update(np.ascontiguousarray(rows).tobytes())
        return digest.digest()


def slow_note(table: ParquetTable, groups: RowGroups) -> tuple[str, ...]:
    """A sentence where reading one image means to decompress much more than that image."""
    if groups.largest_bytes <= KEPT_BYTES:
        return ()
    return (
        f"{table.name} has row groups of up to {groups.largest_bytes / 2**20:,.0f} MiB, of which a part is "
        "decompressed for each image, so that reading is slow; write it with smaller ones "
        "(row_group_size=10), or shrink the images into a pack once: lamina data pack",
    )
