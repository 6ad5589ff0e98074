"""Weather: snow, frost, fog, and bright light."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from numpy.random import RandomState
from skimage.color import hsv2rgb, rgb2hsv

from lamina.evaluate.robustness.corruptions.blur import enlarged, streak
from lamina.evaluate.robustness.corruptions.frost import photograph
from lamina.evaluate.robustness.corruptions.kinds import FROST_FILES
from lamina.evaluate.robustness.corruptions.types import Pixels, Values

SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
)
"""Snow: mean and deviation of the noise that flakes are cut from, its enlargement, the value from which on
it is a flake, half the length and the deviation of their streaks in px, the image's share."""
FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
"""Frost: weights of the image and of the photograph."""
FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
"""Fog: how thick it is, and by how much its roughness falls from one scale to half of it."""
LIGHT = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Brightness: what is added to the value (of hue, saturation, value), by severity."""
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def snow(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A whitened image under streaks of falling flakes, and the same streaks turned by 180 degrees."""
    mean, deviation, factor, threshold, radius, spread, share = SNOW[severity - 1]
    height, width = image.shape[:2]
    flakes = enlarged(draw.normal(mean, deviation, (height, width)), factor)
    flakes = np.where(flakes < threshold, 0, flakes).clip(0, 1)
    fallen = streak(flakes, radius, spread, draw.uniform(-135, -45))[:height, :width, None]
    fallen = np.round(fallen * 255) / 255
    unit = image.astype(np.float32) / 255
    white = np.maximum(unit, (unit @ _LUMA)[..., None] * 1.5 + 0.5)
    return 255 * (share * unit + (1 - share) * white + fallen + np.rot90(fallen, 2))


def frost(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A random part of a random photograph of frost on top.

    Raises:
        LaminaError: if the photographs are not installed.
    """
    height, width = image.shape[:2]
    photo = photograph(draw.randint(len(FROST_FILES)), height, width)
    top, left = draw.randint(photo.shape[0] - height), draw.randint(photo.shape[1] - width)
    own, frozen = FROST[severity - 1]
    return own * image + frozen * photo[top : top + height, left : left + width]


def fog(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A cloud added, and the sum scaled: the brightest value stays as it is where the cloud is thickest."""
    thickness, decay = FOG[severity - 1]
    height, width = image.shape[:2]
    cloud = plasma(1 << (max(height, width, 3) - 1).bit_length(), decay, draw)[:height, :width, None]
    unit = image / 255
    brightest = float(unit.max())
    return 255 * ((unit + thickness * cloud) * brightest / (brightest + thickness))


def plasma(side: int, decay: float, draw: RandomState) -> Float32[np.ndarray, "{side} {side}"]:
    """Heights on [0, 1] of a random landscape that goes on at its edges: the diamond-square algorithm
    (Fournier, Fussell and Carpenter, CACM 1982). `side` is a power of two from 2 on.

    From one height, each round halves the grid: centres of squares, then middles of their sides, each the
    mean of its four neighbours plus noise on [-r^2, r^2]; r is 100, and divided by `decay` after each round.
    """
    heights = np.zeros((side, side), np.float32)
    r, step = 100.0, side

    def rough(total: Float32[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
        return total / 4 + r * draw.uniform(-r, r, total.shape)

    while step >= 2:
        corners = heights[::step, ::step]
        centres = heights[step // 2 :: step, step // 2 :: step]
        pairs = corners + np.roll(corners, -1, axis=0)
        centres[:] = rough(pairs + np.roll(pairs, -1, axis=1))
        above_below = centres + np.roll(centres, 1, axis=0)
        heights[::step, step // 2 :: step] = rough(above_below + (corners + np.roll(corners, -1, axis=1)))
        beside = centres + np.roll(centres, 1, axis=1)
        heights[step // 2 :: step, ::step] = rough(beside + (corners + np.roll(corners, -1, axis=0)))
        r, step = r / decay, step // 2
    heights -= heights.min()
    heights /= heights.max()
    return heights


def brightness(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A higher value at the same hue and saturation."""
    hsv = rgb2hsv(image / 255)
    hsv[..., 2] = (hsv[..., 2] + LIGHT[severity - 1]).clip(0, 1)
    return 255 * hsv2rgb(hsv)  # type: ignore[no-any-return]
