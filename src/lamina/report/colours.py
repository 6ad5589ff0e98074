"""Colours of curves and bars.

They come in pairs, for light and for dark pages, and stay apart for colour-blind readers: viridis by
depth for the taps of a fusion, Okabe and Ito's hues (2008) for runs, darker or lighter where the
background asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """One meaning, two colours: on a light page and on a dark one, and a dash for the sixth run on."""

    light: str
    dark: str
    dash: str = ""


RUN_HUES = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#e69f00"),
    ("#00825f", "#2fc79c"),
    ("#a8497f", "#d98fb8"),
    ("#3d3d3d", "#e8e8e8"),
)
DASHES = ("", "7 3", "2 3", "9 3 2 3")
MUTED = Colour("#8a8f98", "#7d838d")
ACCENT = Colour(*RUN_HUES[0])


def run_colour(i: int) -> Colour:
    """The colour of the i-th run of a page; from the sixth on the hues return, dashed."""
    return Colour(*RUN_HUES[i % len(RUN_HUES)], DASHES[i // len(RUN_HUES) % len(DASHES)])


def depth_colours(n: int) -> list[Colour]:
    """`n` colours from shallow to deep: the stretch of viridis that is legible on each background."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    viridis = colormaps["viridis"]
    shares = [i / max(1, n - 1) for i in range(n)]
    return [Colour(to_hex(viridis(0.59 * s)), to_hex(viridis(0.36 + 0.64 * s))) for s in shares]
