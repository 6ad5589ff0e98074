"""Text tables: .csv, and .tsv with tabs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.file_names import is_image_name
from lamina.data.find_files import text_of
from lamina.data.tables.columns import Column, Table

_DELIMITERS = (",", ";", "\t")
_PART = 1 << 14


class CsvTable(Table):
    """A table whose cells are texts; the first line names the columns.

    The columns of a .csv are divided by commas, semicolons or tabs, whichever the first line has most of.

    Raises:
        LaminaError: for a file that cannot be read, is no such table, or whose rows differ in length.
    """

    def __init__(self, path: str) -> None:
        header, cells = _read(path)
        n = len(cells[0]) if cells else 0
        super().__init__(path, os.path.dirname(path), [Column(name, "text") for name in header], n)
        self._cells = dict(zip(header, cells, strict=True))

    def values(self, column: Column, most: int | None = None) -> list[Any]:
        """The cells of a column, or its first ones; None where a cell is empty."""
        return [cell or None for cell in islice(self._cells[column.name], most)]


def _read(path: str) -> tuple[list[str], list[list[str]]]:
    """Names of the columns, and the cells of each."""
    shown = printable(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise LaminaError(f"cannot read {shown}: {error.strerror}") from None
    text = text_of(content)
    first = text.partition("\n")[0]
    tabs = path.lower().endswith(".tsv")
    delimiter = "\t" if tabs else max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=not tabs)
    rows = filter(None, reader)
    try:
        header = [name.strip() for name in next(rows, ())]
        if not header:
            raise LaminaError(f"{shown} is empty; its first line has to name the columns")
        _check_header(header, shown)
        cells, odd = _columns(rows, len(header))
    except csv.Error as error:
        raise LaminaError(f"{shown} is no table: {error}") from None
    if odd:
        raise LaminaError(
            f"{counted(len(odd), 'row')} of {shown} {'has' if len(odd) == 1 else 'have'} not the "
            f"{counted(len(header), 'cell')} that the first line has, such as row {odd[0]}; put texts with "
            f"{'tabs' if delimiter == chr(9) else repr(delimiter)} in quotes"
        )
    return header, cells


def _columns(rows: Iterator[list[str]], n: int) -> tuple[list[list[str]], list[int]]:
    """The cells of each of n columns, and the numbers of the rows that have another number of cells. Rows are
    taken a part at a time: a list for each of millions would cost more than their texts."""
    cells, odd, number = [list[str]() for _ in range(n)], list[int](), 2
    while part := list(islice(rows, _PART)):
        odd += [i for i, row in enumerate(part, start=number) if len(row) != n]
        number += len(part)
        if not odd:
            for column, more in zip(cells, zip(*part, strict=True), strict=True):
                column += more
    return cells, odd


def _check_header(header: list[str], shown: str) -> None:
    if paths := [name for name in header if is_image_name(os.path.basename(name))]:
        raise LaminaError(
            f"the first line of {shown} has to name the columns, and has {printable(paths[0])}; put a line "
            "such as path,label before it"
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise LaminaError(f"{shown} has several columns {printable(twice[0])!r}; give each its own name")
