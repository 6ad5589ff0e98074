"""What there is in a frame of `sample:doom`: surfaces, kinds of objects, scenes."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

SURFACES = ("floor", "ceiling", "wall", "sky", "monster", "item", "scenery")
"""Classes of pixels; the first four are the surfaces that are no objects."""
KINDS = ("monster", "aid", "arms", "barrel", "light", "plant", "column", "remains")
"""Classes of objects."""
SCENES = ("nook", "room", "hall", "outdoors")
"""Classes of frames."""

FLOOR, CEILING, WALL, SKY, FIRST_OBJECT = range(5)
"""How a frame is kept: the surface of each pixel, where FIRST_OBJECT + k is object k of the frame."""
FARTHEST = 63
"""Depth of what is 457 map units away or more; vizdoom's own value for walls and sky so far off."""

_CATEGORIES = {
    "monster": ("Monster",),
    "aid": ("Health", "Armor", "Powerup", "Key"),
    "arms": ("Weapon", "Ammo"),
    "barrel": ("Hazard",),
    "light": ("LightSource",),
    "plant": ("Vegetation",),
    "column": ("Decoration",),
    "remains": ("Gore", "Gibs"),
}
KIND_OF = {category: KINDS.index(kind) for kind, names in _CATEGORIES.items() for category in names}
"""The kind of each of vizdoom's categories of objects."""
SURFACE_OF = np.array([SURFACES.index(s) for s in ("monster", "item", "item", *["scenery"] * 5)], np.uint8)
"""The class of an object's pixels, by its kind."""

_OUTDOORS_SKY = 0.03
_MEAN_DEPTHS = (17.5, 24.5)


def scene(surface: UInt8[np.ndarray, "H W"], depth: UInt8[np.ndarray, "H W"]) -> int:
    """The class of a frame in `SCENES`: by its share of sky, else by the mean depth of what is seen."""
    sky = surface == SKY
    if sky.mean() >= _OUTDOORS_SKY:
        return SCENES.index("outdoors")
    return int(np.searchsorted(_MEAN_DEPTHS, depth.mean(), side="right"))
