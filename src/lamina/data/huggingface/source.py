"""Images in memory-mapped Arrow tables: the bytes of their files, read by row and decoded as files are."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.data.columns import as_array
from lamina.data.decode.decode import open_regular
from lamina.data.decode.limits import Stream
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.digest import encoded_digest, file_state, placed_state
from lamina.data.sources import EncodedSource, Version


class Table(NamedTuple):
    """The images of one split."""

    data: Any
    """A memory-mapped `datasets.table.Table`; pickled, it is the paths of its files."""
    files: tuple[str, ...]
    """The files that it is in."""


class ArrowSource(EncodedSource):
    """Rows of tables whose column `column` holds the bytes of an image's file, its path, or both (the type
    `Image` of `datasets`). Bytes go before the path; a path is that of a file on this machine.

    Args:
        tables: one after the other.
        column: name of the column.
        names, labels, class_names, notes, no_labels: as `Source`.
        version: the commit and the fingerprint.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        column: str,
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        class_names: Sequence[str] = (),
        *,
        notes: Sequence[str] = (),
        no_labels: str = "",
        version: Version,
    ) -> None:
        super().__init__(names, labels, class_names, notes=notes, no_labels=no_labels)
        self.version = version
        self.tables, self.column = tuple(tables), column
        self._ends = np.cumsum([table.data.num_rows for table in tables])

    def _row(self, i: int) -> tuple[bytes | None, str | None]:
        """The bytes and the path that row i has."""
        number = int(np.searchsorted(self._ends, i, side="right"))
        first = int(self._ends[number - 1]) if number else 0
        cell = self.tables[number].data.fast_slice(i - first, 1).column(self.column)[0].as_py()
        if isinstance(cell, dict):
            return cell.get("bytes"), cell.get("path")
        return (None, cell) if isinstance(cell, str) else (cell, None)

    def open(self, i: int) -> Stream:
        """The bytes of image i; raises `Unreadable` where the row has none, or its file is not there."""
        content, path = self._row(i)
        if content is not None:
            return io.BytesIO(content)
        if not path:
            raise Unreadable(Reason.MISSING, "the row has no image")
        return open_regular(path)

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the path, size and time of change of the tables' files and of those that rows name, and
        of the rows."""
        digest = hashlib.sha256()
        for name in (file for table in self.tables for file in table.files):
            digest.update(placed_state(name))
        digest.update(as_array(indices).astype(np.int64).tobytes())
        if (self._sizes(indices) < 0).any():
            for i in indices:
                content, path = self._row(i)
                digest.update(file_state(path or "") if content is None else b"")
        return digest.digest()

    def content(self, indices: Sequence[int]) -> bytes:
        """Digest of the sizes of the images and a sample of their bytes: that of the same files in a folder
        (`digest.files_digest`)."""
        return encoded_digest(self._sizes(indices), lambda k: self.open(indices[k]))

    def _sizes(self, indices: Sequence[int]) -> Int64[NDArray[np.int64], "n"]:
        """The number of bytes that each of these rows has; -1 where there are none, and the path counts."""
        sizes = [_byte_lengths(table.data.column(self.column)) for table in self.tables]
        whole: NDArray[np.int64] = np.concatenate(sizes)
        found: NDArray[np.int64] = whole[as_array(indices)]
        return found


def paths_of(column: Any) -> list[str | None]:
    """The path that each row of a column has."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "path")
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.to_pylist() if is_text else [None] * len(column)


def _byte_lengths(column: Any) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        return np.full(len(column), -1, np.int64)
    lengths = pc.fill_null(pc.cast(pc.binary_length(column), pa.int64()), -1)
    return np.asarray(lengths.to_numpy(), np.int64)
