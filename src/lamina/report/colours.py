"""Colours of curves and bars.

They come in pairs, for light and for dark pages, and stay apart for colour-blind readers: viridis by
depth for the taps of a fusion, hues after Okabe and Ito (2008) for runs (`lamina.core.plotting`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.core.plotting import HUES, HUES_ON_DARK, places


@dataclass(frozen=True)
class Colour:
    """A colour for light pages and one for dark pages, and a dash pattern where it is used twice."""

    light: str
    dark: str
    dash: str = ""


DASHES = ("", "7 3", "2 3", "9 3 2 3")
MUTED = Colour("#8a8f98", "#7d838d")
ACCENT = Colour(HUES[0], HUES_ON_DARK[0])


def run_colours(names: Sequence[str]) -> list[Colour]:
    """The colours of a page's runs, as in the pictures of analyses; dashed where one returns."""
    seen: Counter[int] = Counter()
    found = []
    for place in places(names):
        found.append(Colour(HUES[place], HUES_ON_DARK[place], DASHES[seen[place] % len(DASHES)]))
        seen[place] += 1
    return found


def depth_colours(n: int) -> list[Colour]:
    """`n` colours from shallow to deep: the stretch of viridis that is legible on each background."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    viridis = colormaps["viridis"]
    shares = [i / max(1, n - 1) for i in range(n)]
    return [Colour(to_hex(viridis(0.59 * s)), to_hex(viridis(0.36 + 0.64 * s))) for s in shares]
