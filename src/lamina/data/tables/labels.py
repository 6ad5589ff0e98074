"""Cells as labels: a class for each image, or several labels each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.tables.columns import Column, Table

_TRUTHS = {"1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


class Labels(NamedTuple):
    """Labels of rows: each has one of the classes, or any number of them."""

    names: tuple[str, ...]
    """Names of the classes, sorted: numbers by their value, texts as folders are."""
    classes: Int64[NDArray[np.int64], "N"] | None
    """Of each row an index into `names`; -1 for an empty cell. None where a row has several."""
    several: Bool[NDArray[np.bool_], "N K"] | None
    """Which of the names each row has; None where each has one."""
    known: Bool[NDArray[np.bool_], "N"]
    """Whether a row's cells have labels: false for empty ones."""


def read_labels(
    table: Table, columns: Sequence[Column], separator: str | None, rows: Int64[NDArray[np.int64], "N"]
) -> Labels:
    """The labels of some rows: classes by one column; several each by several columns of 0 and 1, by a column
    of lists, or by texts that `separator` divides.

    Raises:
        LaminaError: for cells that are no labels.
    """
    if len(columns) > 1:
        if separator is not None:
            raise LaminaError("&separator= divides the cells of one column; name one, or leave it out")
        return _by_columns(table, columns, rows)
    column = columns[0]
    cells = _cells(table, column, rows)
    if column.kind == "list" or separator is not None:
        return _by_lists(table, column, cells, separator)
    texts = [_text(cell) for cell in cells]
    names, number = _numbered(table, column, filter(None, texts))
    classes = np.array([number.get(text, -1) for text in texts], np.int64)
    return Labels(names, classes, None, classes >= 0)


def _cells(table: Table, column: Column, rows: Int64[NDArray[np.int64], "N"]) -> list[Any]:
    values = table.values(column)
    return values if len(rows) == len(values) else [values[row] for row in rows.tolist()]


def _text(cell: Any) -> str:
    """A label as text, "" for an empty cell; whole numbers that are kept as floats have no fraction."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def _numbered(table: Table, column: Column, texts: Iterable[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Names of the labels, and the number of each text."""
    found = set(texts)
    if not column.classes:
        names = tuple(sorted(found, key=_order(found)))
        return names, {name: i for i, name in enumerate(names)}
    number = {str(i): i for i in range(len(column.classes))} | {"-1": -1}  # -1: Hugging Face's "no label"
    if column.kind == "text" or found - number.keys():
        odd = min(found - number.keys(), default="")
        raise LaminaError(
            f"the column {printable(column.name)} of {table.name} has {printable(odd)!r}, and states "
            f"{counted(len(column.classes), 'class', 'classes')}, 0 to {len(column.classes) - 1}; correct it"
        )
    return column.classes, number


def _order(texts: set[str]) -> Any:
    """The key by which labels are sorted: numbers where all are, else texts."""
    try:
        numbers = {text: float(text) for text in texts}
    except ValueError:
        return str
    return lambda text: (numbers[text], text)


def _by_lists(table: Table, column: Column, cells: Sequence[Any], separator: str | None) -> Labels:
    if column.kind == "list" and separator is None:
        rows = [[_text(item) for item in cell or ()] for cell in cells]
    elif separator and column.kind == "text":
        rows = [[text.strip() for text in (cell or "").split(separator)] for cell in cells]
    else:
        raise LaminaError(
            "&separator= is the text between the labels of one cell, such as &separator=; for cells that are "
            "texts"
        )
    names, number = _numbered(table, column, (text for row in rows for text in row if text))
    several = np.zeros((len(rows), len(names)), np.bool_)
    for i, row in enumerate(rows):
        several[i, [number[text] for text in row if number.get(text, -1) >= 0]] = True
    empty = [cell is None and column.kind == "list" for cell in cells]
    return Labels(names, None, several, ~np.array(empty, np.bool_))


def _by_columns(table: Table, columns: Sequence[Column], rows: Int64[NDArray[np.int64], "N"]) -> Labels:
    """A label for each column."""
    texts = [[_text(cell).lower() for cell in _cells(table, column, rows)] for column in columns]
    truths = _TRUTHS
    if not any(text in ("0", "0.0", "false") for cells in texts for text in cells):
        truths = {**_TRUTHS, "-1": False, "-1.0": False}  # as in CelebA, where -1 is the other value
    for column, cells in zip(columns, texts, strict=True):
        odd = [text for text in cells if text and text not in truths]
        if odd:
            raise LaminaError(
                f"the column {printable(column.name)} of {table.name} has {counted(len(odd), 'cell')} that "
                f"{'is' if len(odd) == 1 else 'are'} neither 0 nor 1, such as {printable(odd[0])!r}; several "
                "columns of labels hold 0 and 1, and classes stand in one column"
            )
    several = np.array([[truths.get(text, False) for text in cells] for cells in texts], np.bool_).T
    known = np.array([all(row) for row in zip(*texts, strict=True)], np.bool_)
    return Labels(tuple(column.name for column in columns), None, np.ascontiguousarray(several), known)
