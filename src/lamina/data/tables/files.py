"""Which tables a name stands for: one, a pattern of parquet files, a folder of parquet files alone."""

from __future__ import annotations

import glob
import os

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.file_names import ending, is_image_name
from lamina.data.found import PassedOver
from lamina.data.query import split_query

TEXT_ENDINGS = (".csv", ".tsv")
PARQUET = ".parquet"


def is_table(spec: object) -> bool:
    """Whether `spec` names a table, with parameters behind it or without."""
    if not isinstance(spec, str):
        return False
    path = split_query(spec)[0]
    if os.path.isdir(path):
        return bool(_in_folder(path)[0])
    return path.lower().endswith((*TEXT_ENDINGS, PARQUET))


def table_files(path: str) -> tuple[list[str], str, PassedOver]:
    """The files of the table at a path, sorted; the folder that they are in; what else that folder has.

    Raises:
        LaminaError: where there is no such file.
    """
    if os.path.isdir(path):
        found, passed_over = _in_folder(path)
        return found, path, passed_over
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
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in found])
    return found, folder, PassedOver()


def _in_folder(folder: str) -> tuple[list[str], PassedOver]:
    """The parquet files below a folder without images, and what lies beside them; none for other folders."""
    found, passed_over = list[str](), PassedOver()
    for top, folders, names in os.walk(folder):
        if any(is_image_name(name) for name in names):
            return [], PassedOver()
        passed_over.hidden += sum(name.startswith(".") for name in folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.lower().endswith(PARQUET):
                passed_over.endings[ending(name)] += 1
            elif name.startswith("."):
                passed_over.hidden += 1
            else:
                found.append(os.path.join(top, name))
    return sorted(found), passed_over
