"""How pictures look: width, legends, colours apart for colour-blind readers too (Okabe and Ito, 2008)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
METHODS = {"MAE": 0, "MAE + MFF": 1, "PixMIM": 2, "PixMIM + MFF": 3, "EVA + MFF": 5, "DeiT + MFF": 6}
"""What has a colour of its own, by the place in `HUES`."""
_CALLED = {"mff": "maemff"}  # what people call a run of a method

WIDTH = 8.0
"""Of a picture, in inches: printed over 7 inches of text, letters of 8 pt are 7 pt high."""


def hues(names: Iterable[str]) -> list[str]:
    """Colours of models: a method's own for those that are called like it (mae, MAE, mff, MAE + MFF), so that
    it does not depend on their order, and for the others those that are left, again and again."""
    names = list(names)
    known = {_letters(name): place for name, place in METHODS.items()}
    found: dict[int, int] = {}
    for i, name in enumerate(names):
        place = known.get(_CALLED.get(_letters(name), _letters(name)))
        if place is not None and place not in found.values():
            found[i] = place
    left = [place for place in range(len(HUES)) if place not in found.values()]
    others = iter(range(len(names)))
    return [HUES[found[i]] if i in found else HUES[left[next(others) % len(left)]] for i in range(len(names))]


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def method_colour(name: str) -> str:
    """The colour of a method, the same in the picture of every study."""
    return HUES[METHODS[name]]


def depths() -> Colormap:
    """Colours from the first block to the last: viridis without the yellow that white paper swallows."""
    return ListedColormap(colormaps["viridis"](np.linspace(0, 0.88, 256)))


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """The legend of all panels under them, in as many columns as the longest label allows."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    inches = 0.6 + longest / 14  # the line and its gaps; 14 letters of "small" are an inch
    columns = max(1, min(len(handles), int(figure.get_figwidth() / inches)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")
