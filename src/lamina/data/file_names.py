"""Names of files: which are images."""

from __future__ import annotations

import os

from lamina.core.errors import LaminaError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_OTHERS = (".png", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".npy")
_DICOM = (".dcm", ".dicom")
SUFFIXES = frozenset((*_JPEG, *_OTHERS, *_DICOM, ".pbm", ".pgm", ".ppm", ".pnm"))
"""A folder or a glob gives the files whose name ends like this; a list gives what it lists."""


def is_image_name(name: str) -> bool:
    """Whether a folder's entry counts as an image; names that begin with a dot never do."""
    return not name.startswith(".") and name[name.rfind(".") :].lower() in SUFFIXES


def ending(name: str) -> str:
    """Its last dot and what follows, in lower case; "" where there is none."""
    return os.path.splitext(name)[1].lower()


def not_files(data: object, instead: str) -> LaminaError:
    """The error for data that are images in memory, where files are read; `instead` says what to do."""
    return LaminaError(
        f"data is a {type(data).__name__}, and lamina reads files: give a folder, a list of paths, a glob or "
        f"sample:NAME; {instead}"
    )
