"""Arrays in one file that is mapped into memory: opened at once, and shared by all processes that read it.

A SHA-256 at the end tells a damaged or unfinished file. It is looked at when the file is opened, by reading
the file piece by piece, which takes no memory; the arrays are then read where they are used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.core.files import replacing
from lamina.data.columns import SharedArray

_PIECE_BYTES = 1 << 20
_ALIGN = 64
_DAMAGED = (OSError, ValueError, KeyError, TypeError, IndexError)


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]], about: Any) -> None:
    """Put arrays, and what JSON can say about them, in the place of what was there. Raises OSError."""
    first, places = 0, {}
    for name, array in arrays.items():
        places[name] = [array.dtype.str, array.shape, first]
        first += -(-array.nbytes // _ALIGN) * _ALIGN
    header = json.dumps({"about": about, "arrays": places}).encode()
    header = header.ljust(-(-(len(header) + 8) // _ALIGN) * _ALIGN - 8)
    digest = hashlib.sha256()
    with replacing(file) as temporary, open(temporary, "wb") as opened:

        def write(content: Any) -> None:
            digest.update(content)
            opened.write(content)

        write(len(header).to_bytes(8, "little"))
        write(header)
        for array in arrays.values():
            write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            write(bytes(-array.nbytes % _ALIGN))
        opened.write(digest.digest())


def read_arrays(file: Path) -> tuple[dict[str, SharedArray], Any] | None:
    """The arrays of `write_arrays`, mapped, and what was said about them; None where there is no such file,
    or it is damaged."""
    try:
        header = _verified_header(file)
        places = header["arrays"].items()
        begin = header["begin"]
        found = {
            name: SharedArray.mapped(str(file), begin + first, dtype, tuple(shape))
            for name, (dtype, shape, first) in places
        }
        return found, header["about"]
    except _DAMAGED:
        return None


def _verified_header(file: Path) -> dict[str, Any]:
    """The header, with the place where the arrays begin; raises one of `_DAMAGED`."""
    digest, buffer = hashlib.sha256(), bytearray(_PIECE_BYTES)
    with open(file, "rb", buffering=0) as opened:
        left = opened.seek(0, 2) - digest.digest_size
        opened.seek(0)
        size = int.from_bytes(opened.read(8), "little")
        if not 0 < size <= left:
            raise ValueError("no header")
        header: dict[str, Any] = {**json.loads(opened.read(size)), "begin": 8 + size}
        opened.seek(0)
        while left > 0:
            n = opened.readinto(memoryview(buffer)[: min(left, _PIECE_BYTES)])
            if not n:
                raise ValueError("it ends too early")
            digest.update(memoryview(buffer)[:n])
            left -= n
        if opened.read() != digest.digest():
            raise ValueError("it was changed")
    return header
