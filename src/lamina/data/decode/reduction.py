"""JPEGs that are decoded at a half, a quarter or an eighth of their size, where no more is needed of them."""

from __future__ import annotations

from typing import NamedTuple

FACTORS = (8, 4, 2)
"""Divisors of a JPEG's blocks of 8 x 8 px; other fractions take longer to decode than the whole image."""


class Reduced(NamedTuple):
    """That an image was decoded smaller: by which factor, and the height and width in px it has itself.

    Pixel (y, x) of the whole image lies at (y / factor, x / factor) in the smaller one, whose last row and
    column are incomplete where the factor does not divide the size.
    """

    factor: int
    height: int
    width: int


def largest_factor(part: tuple[float, float], size: tuple[int, int]) -> int:
    """The largest of `FACTORS`, or 1, by which a part of an image can be smaller and still is no smaller than
    `size`, which it is resized to; both as height and width in px."""
    room = min(part[0] / size[0], part[1] / size[1])
    return next((factor for factor in FACTORS if factor <= room), 1)
