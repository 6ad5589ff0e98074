"""A table's columns: what they hold, and which of them has the images, the labels and the parts."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from lamina.core.config import did_you_mean
from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.file_names import is_image_name

Kind = Literal["image", "text", "number", "truth", "list", "other"]
STORED: Kind = "image"
_NO_TEXTS = (STORED, "other")
"""Kinds of columns whose cells are no labels and no names of parts."""

_IMAGE_NAMES = (
    "image",
    "img",
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image_path",
)
_LABEL_NAMES = ("label", "labels", "class", "classes", "category", "categories", "target", "targets")
_PART_NAMES = ("split", "part", "subset", "partition")
_LOOKED_AT = 100
"""Values of a column that are looked at to tell whether they are the paths of images."""


@dataclass(frozen=True)
class Column:
    """A column, and what its cells hold."""

    name: str
    kind: Kind
    """image: the bytes of an image's file. other: what neither images nor labels can be made of."""
    classes: tuple[str, ...] = ()
    """Names of the classes that its numbers stand for, where the table says so."""


class Table(ABC):
    """Rows of named columns; `name` is how the table is called in sentences."""

    def __init__(self, name: str, folder: str, columns: Sequence[Column], n_rows: int) -> None:
        self.name, self.folder, self.columns, self.n_rows = printable(name), folder, tuple(columns), n_rows

    @abstractmethod
    def values(self, column: Column, most: int | None = None) -> list[Any]:
        """The cells of a column, or its first ones; None where a cell is empty."""

    def column(self, name: str) -> Column:
        """The column of that name; raises `LaminaError` with the names there are."""
        found = next((column for column in self.columns if column.name == name), None)
        if found is None:
            near = did_you_mean(name, [column.name for column in self.columns])
            raise LaminaError(f"{self.name} has no column {printable(name)!r}; {near}{self.names()}")
        return found

    def described(self, name: str, what: str) -> Column:
        """The column of that name, of labels or whatever `what` says; raises `LaminaError` where it is not
        there, or its cells are images or of another kind that says nothing."""
        column = self.column(name)
        if column.kind in _NO_TEXTS:
            raise LaminaError(f"the column {printable(name)} of {self.name} holds no {what}; {self.names()}")
        return column

    def names(self) -> str:
        """ "its columns are a, b and c", for errors."""
        return f"its columns are {joined(self.columns)}" if self.columns else "it has no columns"


def joined(columns: Iterable[Column]) -> str:
    """Names of columns for a sentence."""
    *first, last = [printable(column.name) for column in columns]
    return f"{', '.join(first)} and {last}" if first else last


def image_column(table: Table, named: str | None, ending: str = "") -> Column:
    """The column that is named, or the only one that holds images.

    Images in the table itself are taken before paths; of several columns the one with a usual name ("image",
    "path") is taken.

    Raises:
        LaminaError: for a column that is not there or holds neither images nor paths; where none is found, or
            several.
    """
    if named is not None:
        column = table.column(named)
        if column.kind not in (STORED, "text", "number"):
            raise LaminaError(
                f"the column {printable(named)} of {table.name} holds neither images nor paths; "
                f"{table.names()}"
            )
        return column
    found = [column for column in table.columns if column.kind == STORED]
    found = found or [column for column in table.columns if _has_paths(table, column, ending)]
    usual = [column for column in found if column.name.lower() in _IMAGE_NAMES]
    found = usual if len(usual) == 1 else found
    if len(found) == 1:
        return found[0]
    if found:
        raise LaminaError(
            f"the columns {joined(found)} of {table.name} hold images; say which: "
            f"?image={printable(found[0].name)}"
        )
    raise LaminaError(
        f"no column of {table.name} holds images or paths that end as images do; {table.names()}; name one: "
        "?image=COLUMN (with &ending=.jpg where names have no ending)"
    )


def _has_paths(table: Table, column: Column, ending: str) -> bool:
    if column.kind != "text":
        return False
    texts = [text + ending for text in table.values(column, _LOOKED_AT) if text]
    return bool(texts) and all(is_image_name(os.path.basename(text)) for text in texts)


def label_columns(table: Table, named: str | None, image: Column) -> tuple[tuple[Column, ...], str]:
    """The columns that are named (several: one for each label), or the one with a usual name; and why there
    is none.

    Raises:
        LaminaError: for a column that is not there, or holds no labels.
    """
    if named is not None:
        if not named:
            return (), "?label= says that there are none"
        if any(column.name == named for column in table.columns):
            return (table.described(named, "labels"),), ""
        return tuple(table.described(name, "labels") for name in named.split(",")), ""
    others = [column for column in table.columns if column != image and column.kind not in _NO_TEXTS]
    found = [c for c in others if c.classes or c.name.lower() in _LABEL_NAMES]
    if len(found) == 1:
        return tuple(found), ""
    if found:
        one = printable(found[0].name)
        return (), f"{joined(found)} may each be the labels; say which: {table.name}?label={one}"
    example = next(iter(others), None)
    if example is None:
        return (), f"{table.name} has no other column of texts or numbers"
    return (), f"no column is called label; say which it is: {table.name}?label={printable(example.name)}"


def part_column(table: Table, named: str | None, taken: Iterable[Column]) -> Column | None:
    """The column that is named, or the first one with a usual name; None where there is none.

    Raises:
        LaminaError: for a column that is not there, or holds no texts.
    """
    if named is not None:
        return table.described(named, "names of parts") if named else None
    fit = (c for c in table.columns if c.kind not in _NO_TEXTS and c not in tuple(taken))
    usual = (c for c in fit if c.name.lower() in _PART_NAMES)
    return next(islice(usual, 1), None)
