"""Which files are DICOM: by their mark, since many have no ending."""

from __future__ import annotations

import os
import stat

from lamina.data.file_names import ending, is_image_name

MARK = b"DICM"
MARK_AT = 128
"""Where the mark stands in a file, in bytes (PS3.10, 7.1)."""
HEAD = MARK_AT + len(MARK)
"""Bytes of a file that show whether it has the mark."""
_LISTING = "DICOMDIR"


def has_mark(head: bytes) -> bool:
    """Whether these first bytes of a file are those of a DICOM file."""
    return head[MARK_AT:HEAD] == MARK


def is_image_file(name: str, path: str) -> bool:
    """Whether a folder's entry counts as an image: by its ending, or by the mark of DICOM in a file without
    an ending, or with one of digits alone, as UIDs have. The list of a medium (DICOMDIR) is none."""
    if is_image_name(name):
        return True
    end = ending(name)
    if name.startswith(".") or name.upper() == _LISTING or (end and not end[1:].isdecimal()):
        return False
    return _is_marked(path)


def _is_marked(path: str) -> bool:
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(file).st_mode) and has_mark(os.read(file, HEAD))
    except OSError:
        return False
    finally:
        os.close(file)
