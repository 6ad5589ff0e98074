"""How stored values become numbers from 0 to 1: the texts of `data.value_range` and `data.nodata`."""

from __future__ import annotations

import math
from typing import Literal

from lamina.core.errors import LaminaError

ValueRange = tuple[tuple[float, float], ...]
"""The stored values that become 0 and 1: one pair for all channels, or one for each."""
Nodata = Literal["file", "nan", "keep"]
"""Words in the place of a number in `data.nodata`."""
BY_FILE: Nodata = "file"
ONLY_NAN: Nodata = "nan"
NO_FILL: Nodata = "keep"


def parse_value_range(text: str, option: str = "data.value_range") -> ValueRange:
    """`LOW:HIGH`, or as many of them as there are channels, joined by commas.

    Raises:
        LaminaError: for anything else, where a number is not finite, and where LOW is not below HIGH.
    """
    pairs = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        try:
            pair = float(low), float(high)
        except ValueError:
            pair = math.nan, math.nan
        if not (math.isfinite(pair[0]) and math.isfinite(pair[1]) and pair[0] < pair[1]):
            raise LaminaError(
                f"{option} is {text!r}; give the stored values that become 0 and 1 as LOW:HIGH, such as "
                "0:10000 or -1024:3071, or one pair for each channel, joined by commas"
            )
        pairs.append(pair)
    return tuple(pairs)


def value_range_text(pairs: ValueRange) -> str:
    """What `parse_value_range` reads, always the same for the same numbers."""
    return ",".join(f"{number_text(low)}:{number_text(high)}" for low, high in pairs)


def parse_nodata(text: str, option: str = "data.nodata") -> float | Nodata:
    """A number, or one of the words of this file; NaN as a number is the word.

    Raises:
        LaminaError: for any other text, infinity included.
    """
    word = text.strip().lower()
    for known in (BY_FILE, ONLY_NAN, NO_FILL):
        if word == known:
            return known
    try:
        value = float(word)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise LaminaError(f"{option} is {text!r}; give a number, nan, file or keep")
    return value


def number_text(value: float) -> str:
    """A number without a fraction that says nothing."""
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
