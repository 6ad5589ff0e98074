"""Colours of models in pictures, apart for colour-blind readers too (Okabe and Ito, 2008)."""

from __future__ import annotations

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def colour(i: int) -> str:
    """The colour of the i-th model; they come round after seven."""
    return HUES[i % len(HUES)]
