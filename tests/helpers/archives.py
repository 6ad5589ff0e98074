"""Small archives of small photographs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(seed: int) -> bytes:
    """A photograph of 36 x 24 px."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), np.uint8)
    into = io.BytesIO()
    Image.fromarray(pixels).save(into, "JPEG")
    return into.getvalue()


def two_parts(root: Path) -> Path:
    """Two parts of two classes of five photographs each."""
    for k, part in enumerate(("train", "val")):
        for j, name in enumerate(("cats", "dogs")):
            (root / part / name).mkdir(parents=True)
            for i in range(5):
                (root / part / name / f"{i}.jpg").write_bytes(jpeg(100 * k + 10 * j + i))
    return root


def zipped(into: Path, root: Path, members: Sequence[str], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of folders in `root`."""
    with zipfile.ZipFile(into, "w", method) as archive:
        for member in members:
            for file in sorted((root / member).rglob("*.jpg")):
                archive.write(file, str(file.relative_to(root)))
    return into
