"""Photographs of frost, read from the package imagecorruptions where it is installed."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image

from lamina.core.errors import LaminaError
from lamina.evaluate.robustness.corruptions.kinds import FROST_FILES, FROST_MISSING, frost_folder


def photograph(number: int, height: int, width: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """One of them, enlarged to 1.1 times the smallest size that is its own or more and covers the image.

    Bicubic (Keys with a = -0.75, as OpenCV's), without antialiasing.

    Raises:
        LaminaError: if the photographs are not installed.
    """
    place = frost_folder()
    if place is None:
        raise LaminaError(FROST_MISSING)
    return _enlarged(place / FROST_FILES[number], height, width)


@lru_cache(maxsize=len(FROST_FILES))  # an evaluation asks for one size
def _enlarged(file: Path, height: int, width: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    with Image.open(file) as image:
        photo = torch.from_numpy(np.array(image.convert("RGB")))
    h, w = photo.shape[:2]
    scale = 1.1 * max(1, height / h, width / w)
    size = (math.ceil(h * scale), math.ceil(w * scale))
    pixels = photo.permute(2, 0, 1)[None].float()
    larger = F.interpolate(pixels, size, mode="bicubic", align_corners=False)[0]
    return larger.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
