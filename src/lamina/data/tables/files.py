"""Which tables a name stands for: one, a pattern of parquet files, a folder of parquet files alone."""

from __future__ import annotations

import glob
import os

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.file_names import is_image_name
from lamina.data.query import split_query

TEXT_ENDINGS = (".csv", ".tsv")
PARQUET = ".parquet"


def is_table(spec: object) -> bool:
    """Whether `spec` names a table, with parameters behind it or without."""
    if not isinstance(spec, str):
        return False
    path = split_query(spec)[0]
    if os.path.isdir(path):
        return bool(_in_folder(path))
    return path.lower().endswith((*TEXT_ENDINGS, PARQUET))


def table_files(path: str) -> tuple[list[str], str]:
    """The files of the table at a path, sorted, and the folder that they are in.

    Raises:
        LaminaError: where there is no such file.
    """
    if os.path.isdir(path):
        return _in_folder(path), path
    if glob.has_magic(path) and not os.path.lexists(path):
        found = sorted(glob.glob(path, recursive=True))
        if path.lower().endswith(TEXT_ENDINGS) and len(found) > 1:
            raise LaminaError(f"{printable(path)} names {len(found)} tables; give one, or parquet files")
    else:
        found = [path]
    missing = [file for file in found if not os.path.isfile(file)]
    if missing or not found:
        raise LaminaError(
            f"there is no file {printable(missing[0] if missing else path)}; give a table's path"
        )
    return found, os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in found])


def _in_folder(folder: str) -> list[str]:
    """The parquet files below a folder without images; none for other folders."""
    found = []
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if any(is_image_name(name) for name in names):
            return []
        found += [
            os.path.join(top, name)
            for name in names
            if name.lower().endswith(PARQUET) and not name.startswith(".")
        ]
    return sorted(found)
