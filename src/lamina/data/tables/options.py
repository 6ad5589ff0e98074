"""What is said behind a table's path: `table.csv?image=path&label=species`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableOptions:
    """The columns of a table, and how its paths are read."""

    image: str | None = None
    """Column of the images: paths of files, or in parquet the files' bytes. Unset: the one column that holds
    images."""
    label: str | None = None
    """Column of the classes; or several columns of 0 and 1, joined by commas, for images with several labels
    each. Unset: the column called label, class, category or target (or the plural), or whose classes the
    table names. Empty: no labels."""
    part: str | None = None
    """Column that says which part an image belongs to (train, val, test). Unset: the column called split,
    part, subset or partition. Empty: no parts."""
    root: str | None = None
    """Folder that paths are relative to. Unset: the table's own folder."""
    ending: str = ""
    """Text that is put behind each path, such as .jpg where the table has names without an ending."""
    separator: str | None = None
    """Text between the labels of one cell, such as ; for images with several labels each. Unset: a cell is
    one label."""
