"""Where a camera stands in a map of Doom, and where it looks: near things, off the walls, by seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64

from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.data.samples.doom.wad import FloorPlan

NEAREST, FARTHEST = 48.0, 320.0
"""Distance from the thing that a camera stands near, in map units."""
_OFF_WALLS, _OFF_THINGS = 24.0, 44.0  # the player's radius is 16, and touching an item would take it
_AT_THE_THING, _AIM_DEGREES = 0.75, 40.0


class Place(NamedTuple):
    """Position in map units, and yaw in degrees, anticlockwise from east."""

    x: int
    y: int
    yaw: float


def places(plan: FloorPlan, seed: int, number: int, draws: int) -> Iterator[Place]:
    """What fits of so many random places, a function of the map, the seed and the map's number.

    Each is near a thing that is chosen uniformly, in the same room (no wall in between), more often close
    than far. Three in four look at that thing, 40 degrees off at most; the others look anywhere.
    """
    keys = sample_keys(seed, number, torch.arange(draws))
    for row in uniform(keys, 6, Purpose.CAMERA).tolist():
        place = _place(plan, row)
        if place is not None:
            yield place


def _place(plan: FloorPlan, draws: list[float]) -> Place | None:
    which, far, direction, at_it, aim, anywhere = draws
    thing = plan.things[int(which * len(plan.things))]
    distance, angle = NEAREST + (FARTHEST - NEAREST) * far**2, 2 * np.pi * direction
    spot = np.round(thing + distance * np.array([np.cos(angle), np.sin(angle)]))
    too_close = np.hypot(*(plan.things - spot).T).min() < _OFF_THINGS
    if (
        too_close
        or distances(spot, plan.walls).min() < _OFF_WALLS
        or crossings(thing, spot, plan.walls).any()
    ):
        return None
    towards = np.degrees(angle) + 180 + (2 * aim - 1) * _AIM_DEGREES
    yaw = towards if at_it < _AT_THE_THING else 360 * anywhere
    return Place(int(spot[0]), int(spot[1]), round(float(yaw) % 360, 1))


def distances(
    point: Float64[np.ndarray, "2"], walls: Float64[np.ndarray, "n 2 2"]
) -> Float64[np.ndarray, "n"]:
    """From a point to each wall."""
    start, along = walls[:, 0], walls[:, 1] - walls[:, 0]
    share = ((point - start) * along).sum(1) / np.maximum((along**2).sum(1), 1e-9)
    nearest = start + np.clip(share, 0, 1)[:, None] * along
    return np.asarray(np.hypot(*(nearest - point).T))


def crossings(
    a: Float64[np.ndarray, "2"], b: Float64[np.ndarray, "2"], walls: Float64[np.ndarray, "n 2 2"]
) -> Bool[np.ndarray, "n"]:
    """Which walls the way from a to b crosses: each has its ends on two sides of the other."""
    start, end = walls[:, 0], walls[:, 1]
    return np.asarray(
        (_side(a, b, start) * _side(a, b, end) < 0) & (_side(start, end, a) * _side(start, end, b) < 0)
    )


def _side(
    a: Float64[np.ndarray, "*#n 2"], b: Float64[np.ndarray, "*#n 2"], point: Float64[np.ndarray, "*#n 2"]
) -> Float64[np.ndarray, "n"]:
    """Positive where the point is to the left of the way from a to b."""
    along, to = b - a, point - a
    return np.asarray(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])
