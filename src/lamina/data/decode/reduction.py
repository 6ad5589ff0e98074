"""JPEGs that are decoded at a half, a quarter or an eighth of their size, where no more is needed of them."""

from __future__ import annotations

from typing import NamedTuple

from lamina.data.options import Decoding

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


def reduction(height: int, width: int, orientation: int, how: Decoding) -> Reduced | None:
    """By which factor a JPEG is decoded smaller, if at all.

    For images that are turned it divides their size: otherwise an incomplete last row or column would become
    the first one.

    Args:
        height, width: of the image as it is stored, in px.
        orientation: as of EXIF.
        how: its `reduce` says by how much the image may be smaller.
    """
    if how.reduce is None:
        return None
    orientation = orientation if how.exif_orientation else 1
    height, width = (width, height) if orientation >= 5 else (height, width)
    most = how.reduce(height, width)
    fitting = (f for f in FACTORS if f <= most and (orientation == 1 or not (height % f or width % f)))
    return next((Reduced(factor, height, width) for factor in fitting), None)
