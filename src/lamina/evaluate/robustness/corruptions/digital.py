"""Digital: lower contrast, elastic deformation, large pixels, JPEG."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from jaxtyping import Float
from numpy.random import RandomState
from PIL import Image
from scipy import ndimage

from lamina.evaluate.robustness.corruptions.types import Pixels, Values

CONTRASTS = (0.4, 0.3, 0.2, 0.1, 0.05)
"""Share that is left of a value's distance to the mean, by severity."""
STRETCHES = (12.5, 16.25, 21.25, 25.0, 30.0)
"""Elastic: factor on the smoothed displacements, by severity."""
SCALES = (0.6, 0.5, 0.4, 0.3, 0.25)
"""Pixelate: share of the sides that is kept, by severity."""
QUALITIES = (25, 18, 15, 10, 7)
"""JPEG's quality, by severity."""


def contrast(image: Pixels, severity: int, draw: RandomState) -> Values:
    """Every value drawn towards the mean of its channel."""
    unit = image / 255
    mean = unit.mean(axis=(0, 1), keepdims=True)
    drawn: Values = (unit - mean) * CONTRASTS[severity - 1] + mean
    return 255 * drawn


def elastic(image: Pixels, severity: int, draw: RandomState) -> Values:
    """Every pixel from a place some way off, by a smooth random field of displacements.

    Uniform numbers up to 0.5 % of the height, smoothed by a Gaussian of 1 % of the sides, times the stretch.
    """
    height, width = image.shape[:2]
    across, down = (_displacements(height, width, STRETCHES[severity - 1], draw) for _ in range(2))
    rows, columns = np.arange(height)[:, None] + down, np.arange(width) + across
    unit = image.astype(np.float32) / 255
    places = (rows, columns)
    moved = [ndimage.map_coordinates(unit[..., c], places, order=1, mode="reflect") for c in range(3)]
    return 255 * np.stack(moved, axis=-1)


def _displacements(
    height: int, width: int, stretch: float, draw: RandomState
) -> Float[np.ndarray, "{height} {width}"]:
    most = 0.005 * height
    noise = draw.uniform(-most, most, size=(height, width))
    smooth = ndimage.gaussian_filter(noise, (0.01 * height, 0.01 * width), mode="reflect", truncate=3)
    return (smooth * stretch).astype(np.float32)  # type: ignore[no-any-return]


def pixelate(image: Pixels, severity: int, draw: RandomState) -> Pixels:
    """Made smaller by averages over boxes, and as large again by repetition."""
    height, width = image.shape[:2]
    scale = SCALES[severity - 1]
    small = (max(1, int(width * scale)), max(1, int(height * scale)))
    boxes = Image.fromarray(image).resize(small, Image.Resampling.BOX)
    return np.asarray(boxes.resize((width, height), Image.Resampling.NEAREST))


def jpeg(image: Pixels, severity: int, draw: RandomState) -> Pixels:
    """Through a JPEG file of low quality (Pillow's, with colour at half the resolution)."""
    file = BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITIES[severity - 1])
    return np.asarray(Image.open(file))
