"""Photographs of frost, read from the package imagecorruptions where it is installed."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image

from lamina.core.errors import LaminaError

FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg", "frost6.jpg")
"""Names in the package's folder `frost`."""
MISSING = "frost needs photographs of frost: pip install 'lamina[robustness]', or leave frost out"


def folder() -> Path | None:
    """Where the photographs are; None if they are not installed. Nothing of the package is imported."""
    found = find_spec("imagecorruptions")
    places = () if found is None else found.submodule_search_locations or ()
    folders = (Path(place) / "frost" for place in places)
    return next((each for each in folders if all((each / file).is_file() for file in FILES)), None)


def photograph(number: int, height: int, width: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """One of them, enlarged to 1.1 times the smallest size that is its own or more and covers the image.

    Bicubic (Keys with a = -0.75, as OpenCV's), without antialiasing.

    Raises:
        LaminaError: if the photographs are not installed.
    """
    place = folder()
    if place is None:
        raise LaminaError(MISSING)
    return _enlarged(place / FILES[number], height, width)


@lru_cache(maxsize=len(FILES))  # an evaluation asks for one size
def _enlarged(file: Path, height: int, width: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    with Image.open(file) as image:
        photo = torch.from_numpy(np.array(image.convert("RGB")))
    h, w = photo.shape[:2]
    scale = 1.1 * max(1, height / h, width / w)
    size = (math.ceil(h * scale), math.ceil(w * scale))
    pixels = photo.permute(2, 0, 1)[None].float()
    larger = F.interpolate(pixels, size, mode="bicubic", align_corners=False)[0]
    return larger.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
