"""Blur: out of focus, behind frosted glass, by motion and by zooming."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped
from numpy.random import RandomState
from scipy import ndimage

from lamina.evaluate.robustness.corruptions.types import Pixels, Values

DISCS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
"""Defocus: radius of the disc in px, and the deviation of the blur that softens its edge."""
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
"""Glass: deviation of the blur before and after in px, the farthest a pixel comes from in px, passes."""
MOTION = ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))
"""Motion: half the length of the streak in px (its copies: one more than twice that), its deviation."""
ZOOMS = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
"""Zoom: factors from 1 up to the first number, in steps of the second."""


def defocus(image: Pixels, severity: int, draw: RandomState) -> Values:
    """The mean over a disc around each pixel (but see `disc`), the image mirrored at its edges."""
    kernel = disc(*DISCS[severity - 1])
    return 255 * ndimage.correlate(image / 255, kernel[..., None], mode="mirror")  # type: ignore[no-any-return]


def disc(radius: int, deviation: float) -> Float32[np.ndarray, "k k"]:
    """Weights of a disc whose edge is softened by a small Gaussian.

    Their sum is one, but 1.013 and 1.011 for radii of 8 and 10 px: these discs touch the border of their
    array, which is mirrored there, and so the two highest severities are a little brighter.
    """
    reach = max(8, radius)
    place = np.arange(-reach, reach + 1)
    inside = (place[:, None] ** 2 + place**2 <= radius**2).astype(np.float32)
    softening = 1 if radius <= 8 else 2
    return ndimage.gaussian_filter(inside / inside.sum(), deviation, mode="mirror", radius=softening)  # type: ignore[no-any-return]


def glass(image: Pixels, severity: int, draw: RandomState) -> Values:
    """Blurred, every pixel taken from a place near it, and blurred again."""
    deviation, reach, passes = GLASS[severity - 1]
    spread = (deviation, deviation, 0)
    pixels = (ndimage.gaussian_filter(image / 255, spread, mode="nearest") * 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    flat = pixels.reshape(-1, 3)
    for _ in range(passes):
        flat = flat[origins(height, width, reach, draw)]
    seen = flat.reshape(pixels.shape) / 255
    return 255 * ndimage.gaussian_filter(seen, spread, mode="nearest")  # type: ignore[no-any-return]


def origins(height: int, width: int, reach: int, draw: RandomState) -> Int[np.ndarray, "HW"]:
    """Which pixel each one shows after a pass of copying, both numbered row by row.

    From the bottom right to the top left, all but a margin of `reach` px: each pixel becomes what a place
    -reach to reach - 1 px away shows at that moment. (The published loop is written as a swap, but both of
    its sides are views of one array: it copies, and so do the published images.) A place that had its turn
    before leads on to where that one took its pixel from; such chains are followed all at once, each round
    twice as far as the one before.
    """
    own = np.arange(height * width)
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    turns = (rows[:, None] * width + columns).ravel()
    across, down = draw.randint(-reach, reach, size=(len(turns), 2)).T
    source = own.copy()
    source[turns] = turns + down * width + across
    turn = np.full(len(own), len(turns))
    turn[turns] = np.arange(len(turns))
    led = np.where(turn[source] < turn, source, own)  # to an earlier turn, or the end of a chain
    while not np.array_equal(farther := led[led], led):
        led = farther
    return source[led]


def motion(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A streak in a direction of -45 to 45 degrees."""
    return streak(image, *MOTION[severity - 1], draw.uniform(-45, 45))


def streak(
    image: Shaped[np.ndarray, "H W *C"], radius: int, deviation: float, degrees: float
) -> Float[np.ndarray, "H W *C"]:
    """The weighted mean of 2 radius + 1 copies, each shifted by one px more against the direction.

    Weights fall off as one side of a Gaussian; the edge goes on beyond itself. Directions are degrees from
    the x axis towards the lower edge.
    """
    height, width = image.shape[:2]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    weights /= weights.sum()
    down, across = (np.ceil(steps * f(np.deg2rad(degrees)) - 0.5).astype(int) for f in (np.sin, np.cos))
    sides = [(-min(0, shifts.min()), max(0, shifts.max())) for shifts in (down, across)]
    wide = np.pad(image, sides + [(0, 0)] * (image.ndim - 2), mode="edge")
    blurred = np.zeros(image.shape)
    for weight, y, x in zip(weights, down + sides[0][0], across + sides[1][0], strict=True):
        blurred += weight * wide[y : y + height, x : x + width]
    return blurred


def zoom(image: Pixels, severity: int, draw: RandomState) -> Values:
    """The mean of the image and of its middle enlarged by a row of factors (the first of them is 1)."""
    stop, step = ZOOMS[severity - 1]
    factors = np.arange(1, stop, step)
    height, width = image.shape[:2]
    unit = (image / 255).astype(np.float32)
    total = np.zeros_like(unit)
    for channel in range(3):
        for factor in factors:
            total[..., channel] += enlarged(unit[..., channel], factor)[:height, :width]
    return 255 * ((unit + total) / (len(factors) + 1))


def enlarged(image: Float[np.ndarray, "H W"], factor: float) -> Float[np.ndarray, "H2 W2"]:
    """The middle of an image, enlarged bilinearly to its size or a few pixels more."""
    height, width = (int(np.ceil(side / factor)) for side in image.shape)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return ndimage.zoom(image[top : top + height, left : left + width], factor, order=1)  # type: ignore[no-any-return]
