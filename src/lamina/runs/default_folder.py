"""The folder of a run that is given none: runs/ and the name of its images."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError

_RUNS = "runs"
_NO_NAME = "images"
_LONGEST = 64


def default_run_folder(data: Any) -> Path:
    """`runs/NAME` in the current folder, the same for the same data, so that a run that goes on finds it.

    NAME is the last part of the data's path, without its ending and without what follows a "?"; of a pattern
    of files it is that of the folder in which they lie.

    Raises:
        LaminaError: for images that have no path or name.
    """
    if not isinstance(data, str | os.PathLike):
        raise LaminaError("images without a path need a folder for the run: give `out`")
    path = os.path.expanduser(os.fspath(data))
    if not os.path.exists(path):
        path = re.sub(r"\?(\w+=.*)?$", "", path)
    path = os.path.abspath(path) if path.startswith(".") or os.path.exists(path) else path
    parts = [part for part in re.split(r"[/\\]", path) if part]
    plain = [part for part in parts if os.path.exists(path) or not set(part) & set("*?{}[]")]
    last = plain[-1] if plain else ""
    name, ending = os.path.splitext(last)
    word = name if ending and re.fullmatch(r"\.[A-Za-z]{2,7}", ending) and not os.path.isdir(path) else last
    word = re.sub(r"[^\w.-]+", "-", word).strip("-.")[:_LONGEST]
    return Path(_RUNS, word or _NO_NAME)
