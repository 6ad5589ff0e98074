"""Doom's WAD files: walls and things of each map, and a file of one's own that makes every sky magenta."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64
from PIL import Image

MAGENTA = (255, 0, 255)
"""A colour of Doom's palette that no picture in Freedoom shows."""
_HEADER = struct.Struct("<4sii")  # kind, lumps, where their directory begins
_ENTRY = struct.Struct("<ii8s")  # where a lump begins, its bytes, its name
_ONE_SIDED = 0xFFFF


class FloorPlan(NamedTuple):
    """A map seen from above, in map units (the player is 32 wide and 56 high)."""

    game: str
    name: str
    walls: Float64[np.ndarray, "n 2 2"]
    """Both ends (x, y) of each line that has a room on one side alone."""
    things: Float64[np.ndarray, "m 2"]
    """Where monsters, items and the like are at the start, those of other skill levels included."""


def read_plans(file: Path) -> list[FloorPlan]:
    """The maps in a WAD, in its order.

    Raises:
        OSError, ValueError, struct.error: where it is not there or is no such file.
    """
    data = file.read_bytes()
    _, count, start = _HEADER.unpack_from(data)
    entries = [_ENTRY.unpack_from(data, start + i * _ENTRY.size) for i in range(count)]
    lumps = [(name.rstrip(b"\0").decode("latin-1"), data[at : at + size]) for at, size, name in entries]
    return [
        _plan(file.stem, lumps[i - 1][0], dict(lumps[i : i + 10]))
        for i in range(1, count)
        if lumps[i][0] == "THINGS"
    ]


def _plan(game: str, name: str, lumps: dict[str, bytes]) -> FloorPlan:
    corners = np.frombuffer(lumps["VERTEXES"], "<i2").reshape(-1, 2).astype(np.float64)
    lines = np.frombuffer(lumps["LINEDEFS"], "<u2").reshape(-1, 7)  # ends, flags, action, tag, two sides
    things = np.frombuffer(lumps["THINGS"], "<i2").reshape(-1, 5)  # x, y, angle, type, flags
    return FloorPlan(
        game, name, corners[lines[lines[:, 6] == _ONE_SIDED, :2]], things[:, :2].astype(np.float64)
    )


def magenta_sky() -> bytes:
    """A WAD to load on top of a game: its skies become `MAGENTA`, and nothing else changes."""
    picture = io.BytesIO()
    Image.new("RGB", (256, 128), MAGENTA).save(picture, "PNG")
    lumps = [("TX_START", b""), *((f"SKY{k}", picture.getvalue()) for k in range(1, 5)), ("TX_END", b"")]
    content, directory = b"", b""
    for name, lump in lumps:
        directory += _ENTRY.pack(_HEADER.size + len(content), len(lump), name.encode())
        content += lump
    return _HEADER.pack(b"PWAD", len(lumps), _HEADER.size + len(content)) + content + directory
