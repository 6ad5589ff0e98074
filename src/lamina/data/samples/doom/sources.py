"""`sample:doom`: frames of the Freedoom maps with surfaces, objects and depth, split by map (extra `doom`).

Surfaces (`open_doom_maps`): floor, ceiling, wall, sky, monster, item, scenery. Objects (`open_doom_objects`)
are of the last three; with `kinds=1` monsters, aid (health, armour, power-ups, keys), arms (weapons,
ammunition), barrels, lights, plants, columns and remains. Each has the mask of what is seen of it and a box
around that. Objects of fewer than `smallest_px` pixels count as crowds: neither learned nor scored.

The class of a frame is its scene: outdoors where at least 3 % of it are sky; else, by the mean depth of what
is seen, nook (less than 17.5), room (less than 24.5) or hall. Each is about a quarter of the frames; to tell
them takes perspective, and what a sky looks like, of which there are seven.

Depth is vizdoom's: for walls and objects distance along the view in 7.25 map units, rounded down (the player
is 56 units high); for floors and ceilings about a seventh less. It ends at 63, which the sky has too.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from rich.progress import track
from torch import Tensor

from lamina.core.batch import Objects
from lamina.core.console import make_console
from lamina.core.errors import LaminaError
from lamina.core.rng import permutation
from lamina.data.decode.channels import fit_channels
from lamina.data.decode.decode import Decoded
from lamina.data.decode.values import in_memory
from lamina.data.dense.crops import boxes_around
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.options import AS_STORED, Decoding
from lamina.data.query import parse_query
from lamina.data.samples.cache import cache_folder
from lamina.data.samples.catalog import parts_of
from lamina.data.samples.doom.classes import FIRST_OBJECT, KINDS, SCENES, SURFACE_OF, SURFACES, scene
from lamina.data.samples.doom.records import NO_KIND, Records, is_whole, record_type, write_records
from lamina.data.samples.doom.render import Shot, game_file, import_vizdoom, render
from lamina.data.samples.doom.wad import FloorPlan, read_plans
from lamina.data.sources import Source, Split

GAMES = ("freedoom1", "freedoom2")
VALIDATION_MAPS = 6
"""Maps of each game that are for validation: 12 of 68."""

_FEWEST_OF_A_MAP = 8
_FORMAT = 1  # goes up when the same parameters give other frames


@dataclass(frozen=True)
class DoomOptions:
    """How many frames, and how large."""

    train: int = 3000
    """Number of training frames, from 56 maps."""
    val: int = 600
    """Number of validation frames, from the 12 other maps."""
    height: int = 112
    """Height of a frame in pixels, a multiple of 16."""
    width: int = 160
    """Width of a frame in pixels, a multiple of 16."""
    seed: int = 0
    """Random seed that decides which maps are for validation, and where the camera stands."""
    smallest_px: int = 150
    """Objects with fewer visible pixels than this count as crowds, which are neither learned nor scored."""
    kinds: bool = False
    """Give objects eight kinds, most of them rare, instead of the three classes of the surfaces."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if self.train < 1 or self.val < 1 or self.seed >= 1 << 31:
            raise LaminaError("sample:doom needs train >= 1, val >= 1 and a seed below 2 ** 31")
        if any(side < 16 or side % 16 for side in (self.height, self.width)):
            raise LaminaError("sample:doom needs a height and a width that are multiples of 16")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


class DoomFrames(Source):
    """The frames as images, with scenes as labels and a depth map for each."""

    def __init__(self, records: Records, plans: Sequence[FloorPlan]) -> None:
        maps, places, yaws = (records.column(name) for name in ("map", "place", "yaw"))
        names = [
            f"{plans[m].name}@{x},{y},{yaw:.0f}" for m, (x, y), yaw in zip(maps, places, yaws, strict=True)
        ]
        super().__init__(names, records.column("scene").tolist(), SCENES)
        self.records = records

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        """Frame i; raises `Unreadable` where its channels do not fit."""
        found = in_memory(torch.from_numpy(self.records[i]["image"].copy()).permute(2, 0, 1), how)
        image = fit_channels(found.image, how.in_chans, alpha=False)
        return Decoded(image, "memory", str(image.dtype).removeprefix("torch."), notes=found.notes)

    def read_depth(self, i: int) -> UInt8[Tensor, "H W"]:
        """Depth of each pixel of frame i, 0 to 63, in the units that this file's docstring gives."""
        return torch.from_numpy(self.records[i]["depth"].copy())

    def fingerprint(self, indices: Sequence[int]) -> bytes:
        """Digest of the frames' checksums."""
        return hashlib.sha256(self.records.column("crc32")[list(indices)].tobytes()).digest()


class DoomMaps(MapSource):
    """The surface of each pixel of the frames."""

    images: DoomFrames
    classes = SURFACES

    def __init__(self, images: DoomFrames) -> None:
        self.images = images

    def read_map(self, i: int, how: Decoding = AS_STORED) -> UInt8[Tensor, "H W"]:
        """The surface of each pixel of frame i; every pixel has one."""
        record = self.images.records[i]
        of_objects = SURFACE_OF[record["kinds"] % NO_KIND]  # unused places become 0, which nothing looks up
        table = np.concatenate([np.arange(FIRST_OBJECT, dtype=np.uint8), of_objects])
        return torch.from_numpy(table[record["surface"]])


class DoomObjects(ObjectSource):
    """What is seen of monsters, items and scenery, in the order of vizdoom's list."""

    images: DoomFrames

    def __init__(self, images: DoomFrames, smallest_px: int, kinds: bool) -> None:
        self.images, self.smallest_px = images, smallest_px
        self.classes = KINDS if kinds else SURFACES[FIRST_OBJECT:]
        self._label_of = np.arange(len(KINDS)) if kinds else SURFACE_OF.astype(np.int64) - FIRST_OBJECT

    def labels_content(self) -> bytes:
        """What of the objects the frames do not say themselves."""
        return f"{self.smallest_px} px".encode()

    def read_objects(self, i: int, how: Decoding = AS_STORED) -> Objects:
        """Objects of frame i, boxes tight around the pixels that are seen; small ones are crowds."""
        record = self.images.records[i]
        kinds = record["kinds"][record["kinds"] != NO_KIND]
        values = FIRST_OBJECT + np.arange(len(kinds), dtype=np.uint8)
        masks = np.asarray(record["surface"] == values[:, None, None])
        seen = masks.any((1, 2))
        found, labels = torch.from_numpy(masks[seen]), torch.from_numpy(self._label_of[kinds[seen]])
        return Objects(boxes_around(found), labels, found, found.sum((1, 2)) < self.smallest_px)


def open_doom(query: str, split: Split | None) -> DoomFrames:
    """The frames of one part (None: the training part), rendered once and then read from the cache.

    All of them take about a minute on one core, and 0.3 GB in the folder that `cache_folder` gives.

    Raises:
        LaminaError: if vizdoom is not installed or stops, or the cache cannot be written.
    """
    options = parse_query(query, DoomOptions)
    vizdoom = import_vizdoom()
    try:
        plans = [plan for game in GAMES for plan in read_plans(game_file(vizdoom, game))]
    except (OSError, ValueError, struct.error) as error:
        raise LaminaError(f"the maps in vizdoom cannot be read ({error}); reinstall it") from None
    parts = (_rendered(plans, options, part, vizdoom.__version__) for part in parts_of(split))
    return DoomFrames(Records(parts), plans)


def open_doom_maps(query: str, split: Split | None) -> DoomMaps:
    """The surfaces of the frames that `open_doom` gives."""
    return DoomMaps(open_doom(query, split))


def open_doom_objects(query: str, split: Split | None) -> DoomObjects:
    """The objects of the frames that `open_doom` gives."""
    options = parse_query(query, DoomOptions)
    return DoomObjects(open_doom(query, split), options.smallest_px, bool(options.kinds))


def maps_of(plans: Sequence[FloorPlan], seed: int) -> dict[str, list[int]]:
    """Which maps, as numbers in `plans`, are for which part: a function of the seed alone.

    They are in random order, the games taking turns, so that the first few are a fair choice.
    """
    found: dict[str, list[int]] = {"train": [], "val": []}
    ranked: dict[str, list[tuple[int, int, int]]] = {"train": [], "val": []}
    for k, game in enumerate(GAMES):
        own = [number for number, plan in enumerate(plans) if plan.game == game]
        order = [own[i] for i in permutation(seed, k, len(own)).tolist()]
        for part, numbers in (("val", order[:VALIDATION_MAPS]), ("train", order[VALIDATION_MAPS:])):
            ranked[part] += [(rank, k, number) for rank, number in enumerate(numbers)]
    for part in found:
        found[part] = [number for _, _, number in sorted(ranked[part])]
    return found


def _rendered(plans: Sequence[FloorPlan], options: DoomOptions, part: str, version: str) -> Path:
    """The file of one part, rendered if it is not there or damaged."""
    count, (height, width) = getattr(options, part), options.size
    name = f"vizdoom-{version}-{part}-{count}-{width}x{height}-seed-{options.seed}-format-{_FORMAT}.npy"
    file = cache_folder() / "doom" / name
    if is_whole(file, count, options.size):
        return file
    few = -(-count // _FEWEST_OF_A_MAP)  # entering a map takes as long as some frames
    numbers = sorted(maps_of(plans, options.seed)[part][:few])
    shots = render([(number, plans[number]) for number in numbers], count, options.size, options.seed)
    console, what = make_console(file=sys.stderr), f"sample:doom renders {count} frames, once"
    if not console.is_terminal:
        console.print(what)
    shown = track(shots, what, count, console=console, transient=True, disable=not console.is_terminal)
    try:
        write_records(file, _records(shown, options.size), count, options.size)
    except OSError as error:
        raise LaminaError(f"{file} cannot be written: {error.strerror or error}; set LAMINA_CACHE") from None
    return file


def _records(shots: Iterable[Shot], size: tuple[int, int]) -> Iterator[np.void]:
    for shot in shots:
        record = np.zeros(1, record_type(size))[0]
        for field in ("image", "surface", "depth"):
            record[field] = getattr(shot, field)
        record["kinds"] = NO_KIND
        record["kinds"][: len(shot.kinds)] = shot.kinds
        record["scene"] = scene(shot.surface, shot.depth)
        record["map"] = shot.number
        record["place"] = shot.place.x, shot.place.y
        record["yaw"] = shot.place.yaw
        yield record
