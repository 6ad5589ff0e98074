"""Small archives of small photographs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lamina.data.open import open_source


def jpeg(seed: int) -> bytes:
    """A photograph of 36 x 24 px."""
    return _encoded(seed, "JPEG")


def png(seed: int) -> bytes:
    """The same without losses."""
    return _encoded(seed, "PNG")


def _encoded(seed: int, form: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 36, 3), np.uint8)
    into = io.BytesIO()
    Image.fromarray(pixels).save(into, form)
    return into.getvalue()


def two_parts(root: Path, ending: str = "jpg", parts: tuple[str, str] = ("train", "val")) -> Path:
    """Two parts of two classes of five photographs each."""
    image = {"jpg": jpeg, "png": png}[ending]
    for k, part in enumerate(parts):
        for j, name in enumerate(("cats", "dogs")):
            (root / part / name).mkdir(parents=True)
            for i in range(5):
                (root / part / name / f"{i}.{ending}").write_bytes(image(100 * k + 10 * j + i))
    return root


def zipped(into: Path, root: Path, members: Sequence[str], method: int = zipfile.ZIP_STORED) -> Path:
    """A zip file of folders in `root`."""
    with zipfile.ZipFile(into, "w", method) as archive:
        for member in members:
            for file in sorted((root / member).rglob("*.jpg")):
                archive.write(file, str(file.relative_to(root)))
    return into


def check_taken(file: Path, content: bytes, names: list[str], note: str) -> None:
    """An archive of this content gives these images, the first of which can be read, and one line that says
    what is passed over; none where `note` is empty."""
    file.write_bytes(content)
    source = open_source(str(file))
    assert [source.name(i) for i in range(len(source))] == names
    assert source.read(0).shape == (3, 24, 36)
    assert note in " ".join(source.notes)
    assert bool(note) == bool(source.notes)
