"""Parquet files as one table; columns are read when they are asked for, and images only one by one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.tables.columns import STORED, Column, Kind, Table

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 65_536
_ROWS_PER_BYTE = 64
"""More rows than this for each byte of a file cannot hold images: a file that states them is damaged."""


def import_parquet() -> Any:
    """`pyarrow.parquet`; raises `LaminaError` where it is not installed."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise LaminaError("parquet files need pyarrow; pip install 'lamina[table]'") from None
    return pyarrow.parquet


class ParquetTable(Table):
    """The rows of one file after those of the other; all files have the same columns.

    Args:
        files: paths, in the order of their rows.
        name: what the table is called in sentences.
        folder: what paths in it are relative to.

    Raises:
        LaminaError: where pyarrow is missing, a file cannot be read, or the columns differ.
    """

    def __init__(self, files: Sequence[str], name: str, folder: str) -> None:
        self.files, self.metadata, columns = tuple(files), list[Any](), list[Column]()
        for path in files:
            with opened_parquet(path) as file:
                self.metadata.append(file.metadata)
                found = _columns(file.schema_arrow)
            if found != (columns := columns or found):
                raise LaminaError(
                    f"{printable(path)} has other columns than {printable(files[0])}; open each by itself"
                )
        self.rows_of_files = [metadata.num_rows for metadata in self.metadata]
        super().__init__(name, folder, columns, sum(self.rows_of_files))

    def values(self, column: Column, most: int | None = None) -> list[Any]:
        """The cells of a column that holds no images, or its first ones; None where a cell is empty."""
        return self._read([column.name], most)

    def stored_paths(self, column: Column) -> list[Any]:
        """Of images in the table, the paths that they had, where the table has kept these."""
        inside = f"{column.name}.path"
        rows = (metadata.row_group(0) if metadata.num_row_groups else None for metadata in self.metadata)
        known = [
            group is not None and inside in (group.column(i).path_in_schema for i in range(group.num_columns))
            for group in rows
        ]
        if not all(known):
            return []
        return [cell and cell["path"] for cell in self._read([inside], None)]

    def _read(self, columns: list[str], most: int | None) -> list[Any]:
        found: list[Any] = []
        for path in self.files:
            if most is not None and len(found) >= most:
                break
            with opened_parquet(path) as file:
                batches = file.iter_batches(most or _BATCH, columns=columns, use_threads=False)
                for batch in batches if most is None else islice(batches, 1):
                    found += batch.column(0).to_pylist()
        return found if most is None else found[:most]


@contextmanager
def opened_parquet(path: str) -> Iterator[pq.ParquetFile]:
    """A parquet file; what is wrong with it, or with what is read of it, becomes a `LaminaError`."""
    parquet = import_parquet()
    try:
        size = os.path.getsize(path)
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > _ROWS_PER_BYTE * size:
                raise ValueError(f"it states {file.metadata.num_rows} rows in {counted(size, 'byte')}")
            yield file
    except (OSError, ValueError, NotImplementedError, MemoryError) as error:  # pyarrow's own derive from them
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> LaminaError:
    why = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0][:200]
    return LaminaError(f"cannot read {printable(path)} as parquet: {printable(why)}")


def _columns(schema: pa.Schema) -> list[Column]:
    classes = _class_names(schema)
    return [Column(field.name, _kind(field.type), classes.get(field.name, ())) for field in schema]


def _kind(kind: pa.DataType) -> Kind:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_binary(kind) or types.is_large_binary(kind) or _is_image_struct(kind):
        return STORED
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_integer(kind) or types.is_floating(kind):
        return "number"
    if types.is_boolean(kind):
        return "truth"
    if types.is_list(kind) or types.is_large_list(kind):
        return "list" if _kind(kind.value_type) in ("text", "number", "truth") else "other"
    return "other"


def _is_image_struct(kind: pa.DataType) -> bool:
    """Whether cells are those of Hugging Face's `Image`: {bytes, path}."""
    from pyarrow import types

    if not types.is_struct(kind):
        return False
    place = kind.get_field_index("bytes")
    return place >= 0 and _kind(kind.field(place).type) == STORED


def _class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Names of the classes that Hugging Face's `ClassLabel` columns, and lists of such, have."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about.get("info", {}).get("features", {})
        found = {name: _names_of(feature) for name, feature in features.items()}
    except (ValueError, AttributeError, TypeError):
        return {}
    return {name: names for name, names in found.items() if names}


def _names_of(feature: Any) -> tuple[str, ...]:
    if isinstance(feature, list) and len(feature) == 1:  # a list of them, as written before datasets 4
        return _names_of(feature[0])
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _names_of(feature["feature"])
    return tuple(map(str, feature["names"])) if feature.get("_type") == "ClassLabel" else ()
