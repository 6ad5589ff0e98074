"""A table as a source: which rows are images, their parts and their labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from lamina.core.errors import LaminaError
from lamina.core.text import counted, printable
from lamina.data.part_names import Role, part_note, roles_of_all
from lamina.data.query import parse_query, split_query
from lamina.data.sources import FileSource, Source, Split
from lamina.data.tables.columns import STORED, Column, Table, image_column, label_columns, part_column
from lamina.data.tables.csv_file import CsvTable
from lamina.data.tables.files import PARQUET, table_files
from lamina.data.tables.labels import Labels, read_labels
from lamina.data.tables.options import TableOptions
from lamina.data.tables.parquet_file import ParquetTable
from lamina.data.tables.paths import usable_rows
from lamina.data.tables.stored import RowGroups, StoredSource, slow_note

Rows = Int64[NDArray[np.int64], "N"]


def open_table(spec: str, split: Split | None) -> tuple[Source, bool]:
    """The images of a table, in the order of its rows; and whether there is a held-out part.

    Parts are told by a column, or, of several files, by the names of the folders that these are in or of the
    files (train-0.parquet beside val-0.parquet). A table without a held-out part is given whole. Labels are
    those of `read_labels`; what is asked for as "train" or "val" leaves rows without a label out.

    Raises:
        LaminaError: for a table that cannot be read, columns that are missing or ambiguous, and labels that
            are none.
    """
    path, query = split_query(spec)
    options = parse_query(query, TableOptions, "a table")
    table, passed_over = _read(path)
    if options.root is not None:
        table.folder = os.path.expanduser(options.root)
    if not table.n_rows:
        raise LaminaError(f"{table.name} has no rows; give a table with a row for each image")
    image = image_column(table, options.image, options.ending)
    columns, why_none = label_columns(table, options.label, image)
    if options.separator is not None and not columns:
        raise LaminaError(f"&separator= divides the labels of a cell, and {why_none}; leave it out")
    part = part_column(table, options.part, (image, *columns))
    names, rows, notes = _images(table, image, options.ending, [*columns, *([part] if part else ())])
    roles = _roles(table, part, rows, asked=bool(options.part))
    labels = read_labels(table, columns, options.separator, rows) if columns else None
    keep, labels, why, said = _chosen(table, split, roles, labels, len(rows))
    chosen = np.flatnonzero(keep)
    texts = [names[i] for i in chosen.tolist()]
    classes = () if labels is None else labels.names
    numbers = None if labels is None or labels.classes is None else labels.classes[chosen].tolist()
    several = None if labels is None or labels.several is None else labels.several[chosen]
    about: dict[str, Any] = {
        "notes": (*passed_over, *notes, *said),
        "no_labels": why or why_none,
        "multi_labels": several,
    }
    if not isinstance(table, ParquetTable) or image.kind != STORED:
        return FileSource(table.folder, texts, numbers, classes, **about), roles is not None
    groups = RowGroups(table, image)
    about["notes"] += slow_note(table, groups)
    source = StoredSource(groups, table.folder, rows[chosen], texts, numbers, classes, **about)
    return source, roles is not None


def _read(path: str) -> tuple[Table, tuple[str, ...]]:
    """The table, and sentences on what lies beside its files and is not used."""
    files, folder, passed_over = table_files(path)
    is_parquet = files[0].lower().endswith(PARQUET)
    return ParquetTable(files, path, folder) if is_parquet else CsvTable(files[0]), passed_over.notes()


def _images(
    table: Table, image: Column, ending: str, beside: Sequence[Column]
) -> tuple[list[str], Rows, tuple[str, ...]]:
    """The name of each image, its row, and what is worth saying of other rows."""
    if image.kind != STORED:
        cells = [None if cell is None else f"{cell}{ending}" for cell in table.values(image)]
        return usable_rows(table, image, cells, beside)
    assert isinstance(table, ParquetTable)
    if ending:
        raise LaminaError(
            f"&ending= is put behind paths, and the column {printable(image.name)} of {table.name} holds the "
            "images themselves; leave it out"
        )
    paths = table.stored_paths(image)
    names: list[Any] = paths if len(set(filter(None, paths))) == table.n_rows else []
    digits = len(str(max(0, table.n_rows - 1)))
    return names or [f"{row:0{digits}d}" for row in range(table.n_rows)], np.arange(table.n_rows), ()


def _roles(table: Table, part: Column | None, rows: Rows, asked: bool) -> list[Role | None] | None:
    """The part of each image; None where there are no two parts."""
    if part is not None:
        cells = table.values(part)
        values = [str(cells[row]).strip() for row in rows.tolist()]
        if (roles := roles_of_all([values])) is not None or not asked:
            return roles
        known = ", ".join(map(printable, sorted(set(values))[:6]))
        raise LaminaError(
            f"the column {printable(part.name)} of {table.name} holds {known}, which do not name a training "
            "and a held-out part; write train and val"
        )
    if not isinstance(table, ParquetTable) or len(table.files) == 1:
        return None
    own = [os.path.relpath(os.path.abspath(file), os.path.abspath(table.folder)) for file in table.files]
    folders = [file.rpartition(os.sep)[0].partition(os.sep)[0] for file in own]
    stems = [os.path.splitext(os.path.basename(file))[0] for file in own]
    by_file = roles_of_all([folders, stems])
    if by_file is None:
        return None
    return list(chain.from_iterable(map(repeat, by_file, table.rows_of_files)))


def _chosen(
    table: Table, split: Split | None, roles: Sequence[Role | None] | None, labels: Labels | None, n: int
) -> tuple[NDArray[np.bool_], Labels | None, str, list[str]]:
    """Which images are of the part; the labels, where all of these have some; why there are none; and
    sentences for users."""
    keep, said = np.ones(n, np.bool_), list[str]()
    if roles is not None and split != "all":
        wanted = "val" if split == "val" else "train"
        keep = np.array([role == wanted for role in roles], np.bool_)
        said.append(part_note(roles.count("train"), roles.count("val"), len(roles)))
    if labels is None:
        return keep, None, "", said
    if without := int((~labels.known[keep]).sum()):
        images = counted(int(keep.sum()), "image")
        why = f"{without} of {images} of {table.name} {'has' if without == 1 else 'have'} no label"
        if split not in ("train", "val") or not labels.known[keep].any():
            return keep, None, why, said
        said.append(f"{why} and {'is' if without == 1 else 'are'} left out")
        keep &= labels.known
    if labels.several is not None:
        if none := int((~labels.several[keep].any(axis=1)).sum()):
            images = counted(int(keep.sum()), "image")
            said.append(
                f"{none} of {images} of {table.name} {'has' if none == 1 else 'have'} none of the labels"
            )
        return (keep, labels, "", said) if labels.names else (keep, None, "no image has a label", said)
    if len(labels.names) < 2:
        return keep, None, f"all images have the label {printable(''.join(labels.names))}", said
    return keep, labels, "", said
