"""The rows of a table whose files are there, each file once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.remote.urls import is_url
from lamina.data.tables.columns import Column, Table


def usable_rows(
    table: Table, image: Column, paths: Sequence[str | None], beside: Sequence[Column]
) -> tuple[list[str], Int64[NDArray[np.int64], "N"], tuple[str, ...]]:
    """The paths of the images and their rows, and a sentence on each kind of rows that is left out: without
    a path, with a file that another row has, with one that is not there.

    Args:
        table: the table.
        image: its column of paths.
        paths: of each row.
        beside: columns of labels and parts, which rows with the same file have to agree in.

    Raises:
        LaminaError: where no file is there, or rows with the same file differ in labels or part.
    """
    rows = [row for row, path in enumerate(paths) if path]
    notes = []
    if n := len(paths) - len(rows):
        notes.append(f"{counted(n, 'row')} of {table.name} without a path {_left_out(n)}")
    first = dict[str, int]()
    again = [row for row in rows if first.setdefault(os.path.normpath(str(paths[row])), row) != row]
    if again:
        _check_agreement(table, paths, first, again, beside)
        notes.append(
            f"{counted(len(again), 'row')} of {table.name} with a file of another row {_left_out(len(again))}"
        )
    there = _there(table.folder, first)
    if absent := [row for path, row in first.items() if path not in there]:
        example = printable(str(paths[absent[0]]))
        if not there and is_url(example):
            raise LaminaError(
                f"{table.name} names addresses such as {example}, and a table's paths are those of files on "
                "this machine; download them, or give archives at the remote"
            )
        if not there:
            raise LaminaError(
                f"none of the {counted(len(absent), 'file')} that {table.name} names in its column "
                f"{printable(image.name)} is in {printable(table.folder or '.')}, such as {example}; "
                "say where they are: ?root=FOLDER"
            )
        notes.append(
            f"{len(absent)} of {counted(len(first), 'file')} that {table.name} names "
            f"{'is' if len(absent) == 1 else 'are'} not there and {_left_out(len(absent))}, such as {example}"
        )
    names = [path for path in first if path in there]
    return names, np.array([first[name] for name in names], np.int64), tuple(notes)


def _left_out(n: int) -> str:
    return "is left out" if n == 1 else "are left out"


def _check_agreement(
    table: Table,
    paths: Sequence[str | None],
    first: dict[str, int],
    again: Sequence[int],
    beside: Sequence[Column],
) -> None:
    """Raise where rows with the same file have different labels, or are in different parts."""
    for column in beside:
        cells = table.values(column)
        odd = [row for row in again if cells[row] != cells[first[os.path.normpath(str(paths[row]))]]]
        if odd:
            raise LaminaError(
                f"{counted(len(odd), 'row')} of {table.name} {'differs' if len(odd) == 1 else 'differ'} in "
                f"{printable(column.name)} from another row with the same file, such as "
                f"{printable(str(paths[odd[0]]))}; give each file one row"
            )


def _there(folder: str, paths: Iterable[str]) -> set[str]:
    """Those of the paths at which there is something; folders are listed, since a look at each file takes
    long on a network disk."""
    listed = dict[str, frozenset[str]]()
    found = set()
    for path in paths:
        around, name = os.path.split(os.path.join(folder, path))
        if around not in listed:
            try:
                listed[around] = frozenset(os.listdir(around or "."))
            except OSError:
                listed[around] = frozenset()
        # A disk that makes no difference between a and A has more names than a list says.
        if name in listed[around] or os.path.lexists(os.path.join(around, name)):
            found.add(path)
    return found
