"""sample:doom: what is rendered, how it is split, and that it comes back the same from anywhere."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.dense.sources import MapSource, ObjectSource
from lamina.data.open import held_out, open_source
from lamina.data.options import Decoding
from lamina.data.samples.doom import render as doom_render
from lamina.data.samples.doom import sources as doom_module
from lamina.data.samples.doom.cameras import places
from lamina.data.samples.doom.classes import FARTHEST, FLOOR, KINDS, SCENES, SKY, SURFACES, WALL, scene
from lamina.data.samples.doom.records import is_whole
from lamina.data.samples.doom.render import worth_it
from lamina.data.samples.doom.sources import (
    GAMES,
    DoomFrames,
    DoomOptions,
    maps_of,
    open_doom,
    open_doom_maps,
    open_doom_objects,
)
from lamina.data.samples.doom.wad import MAGENTA, FloorPlan, magenta_sky, read_plans

QUERY = "train=24&val=12"
VIZDOOM = find_spec("vizdoom")
renders = pytest.mark.skipif(VIZDOOM is None, reason="vizdoom is not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this file's own, so that the frames are rendered once here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAMINA_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def train(cache: Path) -> DoomFrames:
    return open_doom(QUERY, None)


@pytest.fixture(scope="module")
def val(cache: Path) -> DoomFrames:
    return open_doom(QUERY, "val")


@pytest.fixture(scope="module")
def plans() -> list[FloorPlan]:
    assert VIZDOOM is not None
    assert VIZDOOM.origin is not None
    folder = Path(VIZDOOM.origin).parent
    return [plan for game in GAMES for plan in read_plans(folder / f"{game}.wad")]


def map_of(source: DoomFrames, i: int) -> str:
    return source.name(i).split("@")[0]


def maps(source: DoomFrames) -> set[str]:
    return {map_of(source, i) for i in range(len(source))}


# --- which maps, which places ---------------------------------------------------------------------------


@renders
def test_the_split_is_by_map_and_a_function_of_the_seed(plans: list[FloorPlan]) -> None:
    assert len(plans) == 68
    for seed in (0, 1):
        parts = maps_of(plans, seed)
        assert sorted(parts["train"] + parts["val"]) == list(range(68))
        assert sorted(plans[n].game for n in parts["val"]) == [*["freedoom1"] * 6, *["freedoom2"] * 6]
    assert set(maps_of(plans, 0)["val"]) != set(maps_of(plans, 1)["val"])


@renders
def test_parts_share_no_map_and_use_both_games(
    plans: list[FloorPlan], train: DoomFrames, val: DoomFrames
) -> None:
    parts = maps_of(plans, 0)
    assert maps(train) <= {plans[n].name for n in parts["train"]}
    assert maps(val) <= {plans[n].name for n in parts["val"]}
    assert not maps(train) & maps(val)
    for source in (train, val):
        assert {name[:3] == "MAP" for name in maps(source)} == {True, False}


def two_rooms() -> FloorPlan:
    """Rooms of 1000 x 1000 units with a wall between them, things in each; a stump of a wall in the first."""
    corners = [(0, 0), (1000, 0), (2000, 0), (2000, 1000), (1000, 1000), (0, 1000)]
    ends = [
        *zip(corners, [*corners[1:], corners[0]], strict=True),
        ((1000, 0), (1000, 1000)),
        ((300, 0), (300, 600)),
    ]
    return FloorPlan(
        "freedoom1", "E1M1", np.array(ends, float), np.array([(150, 150), (800, 500), (1100, 500)], float)
    )


def test_places_are_in_the_thing_s_room_off_walls_and_things() -> None:
    plan = two_rooms()
    found = list(places(plan, seed=3, number=0, draws=600))
    assert 100 < len(found) < 600
    spots = np.array([(place.x, place.y) for place in found], float)
    x, y = spots.T
    assert (np.abs(x[:, None] - (0, 1000, 2000)) >= 24).all()
    assert (np.minimum(y, 1000 - y) >= 24).all()
    assert (np.hypot(x - 300, np.maximum(y - 600, 0)) >= 24).all()
    gaps = np.hypot(*(spots[:, None] - plan.things).transpose(2, 0, 1))
    assert gaps.min() >= 44
    assert gaps.min(1).max() <= 321  # near some thing


def test_no_wall_is_between_a_place_and_its_thing() -> None:
    plan = two_rooms()
    behind_the_stump = list(places(plan._replace(things=plan.things[:1]), 0, 0, 400))
    assert len(behind_the_stump) > 50
    for place in behind_the_stump:
        crossing = 150 + (place.y - 150) * (300 - 150) / (place.x - 150) if place.x > 300 else 1000
        assert crossing > 600  # where the way from (150, 150) is at the stump, x = 300
    next_door = list(places(plan._replace(things=plan.things[2:]), 0, 0, 400))
    assert len(next_door) > 50
    assert min(place.x for place in next_door) > 1000


def test_three_in_four_look_at_their_thing() -> None:
    plan = two_rooms()._replace(things=np.array([(500.0, 800.0)]))
    found = list(places(plan, seed=0, number=0, draws=3000))
    off = np.array([np.degrees(np.arctan2(800 - p.y, 500 - p.x)) - p.yaw for p in found])
    share = (np.abs((off + 180) % 360 - 180) <= 40.5).mean()
    assert share == pytest.approx(0.75 + 0.25 * 80 / 360, abs=0.04)


def test_places_depend_on_seed_and_map_alone() -> None:
    first = list(places(two_rooms(), 0, 5, 100))
    assert list(places(two_rooms(), 0, 5, 200))[: len(first)] == first
    assert list(places(two_rooms(), 1, 5, 100)) != first
    assert list(places(two_rooms(), 0, 6, 100)) != first


# --- frames ---------------------------------------------------------------------------------------------


@renders
def test_frames_are_images_with_scenes(train: DoomFrames, val: DoomFrames) -> None:
    assert (len(train), len(val), len(open_doom(QUERY, "all"))) == (24, 12, 36)
    assert train.class_names == SCENES
    for source in (train, val):
        images = torch.stack([source.read(i) for i in range(len(source))])
        assert images.shape[1:] == (3, 112, 160)
        assert images.dtype == torch.uint8
        assert images.float().flatten(1).std(1).min() > 3
        assert len(images.flatten(1).unique(dim=0)) == len(source)
        assert source.read(0, Decoding(in_chans=1)).shape == (1, 112, 160)
    both = open_doom(QUERY, "all")
    assert torch.equal(both.read(24), val.read(0))
    assert both.labels == [*train.labels, *val.labels]


@renders
def test_surfaces_are_classes_and_stand_where_they_can(train: DoomFrames) -> None:
    source = open_doom_maps(QUERY, "train")
    assert isinstance(source, MapSource)
    assert source.classes == SURFACES
    floor, ceiling, wall, sky = range(4)
    seen = torch.zeros(len(SURFACES), dtype=torch.int64)
    for i in range(len(train)):
        surface, depth = source.read_map(i), train.read_depth(i)
        assert surface.shape == depth.shape == (112, 160)
        seen += torch.bincount(surface.flatten().long(), minlength=len(SURFACES))
        assert not (surface[:56] == floor).any()
        assert not (surface[56:] == ceiling).any()
        assert (depth[surface == sky] == FARTHEST).all()  # as vizdoom has it, which the twin does not know
        share = float((surface == sky).float().mean())
        assert (train.labels[i] == SCENES.index("outdoors")) == (share >= 0.03)
    assert len(seen) == len(SURFACES)
    assert (seen / seen.sum()).min() > 0.001
    assert seen[wall] > seen[sky] > 0


@renders
@pytest.mark.parametrize("kinds", [0, 1])
def test_objects_are_the_pixels_of_their_class_with_tight_boxes(train: DoomFrames, kinds: int) -> None:
    surfaces = open_doom_maps(QUERY, "train")
    objects = open_doom_objects(f"{QUERY}&smallest_px=1&kinds={kinds}", "train")
    assert isinstance(objects, ObjectSource)
    assert objects.classes == (KINDS if kinds else SURFACES[4:])
    surface_of = {"monster": "monster", "item": "item", "aid": "item", "arms": "item"}
    for i in range(len(train)):
        found, surface = objects.read_objects(i), surfaces.read_map(i)
        covered = torch.full_like(surface, 255)
        for box, label, mask in zip(found.boxes.tolist(), found.labels.tolist(), found.masks, strict=True):
            rows, columns = mask.nonzero().unbind(1)
            want = [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
            assert box == [float(side) for side in want]
            assert (covered[mask] == 255).all()  # no pixel is of two objects
            covered[mask] = SURFACES.index(surface_of.get(objects.classes[label], "scenery"))
        are_objects = surface >= SURFACES.index("monster")
        assert torch.equal(covered[are_objects], surface[are_objects])
        assert (covered[~are_objects] == 255).all()
        assert not found.crowd.any()


@renders
def test_small_objects_are_crowds(cache: Path) -> None:
    objects = open_doom_objects(f"{QUERY}&smallest_px=60", "val")
    crowds = []
    for i in range(12):
        found = objects.read_objects(i)
        assert torch.equal(found.crowd, found.masks.flatten(1).sum(1) < 60)
        crowds += found.crowd.tolist()
    assert 0 < sum(crowds) < len(crowds)


@renders
def test_depth_is_distance_in_the_stated_unit(plans: list[FloorPlan], train: DoomFrames) -> None:
    """Rays through the middle row meet a wall of the plan, or something before it: a step, a door."""
    by_name = {plan.name: plan for plan in plans}
    ratios = []
    for i in range(len(train)):
        where = train.records[i]
        walls = by_name[map_of(train, i)].walls
        yaw, row = np.radians(float(where["yaw"])), where["depth"][56]
        for column in range(5, 160, 10):
            if where["surface"][56, column] != WALL or row[column] == FARTHEST:
                continue
            right = (column + 0.5 - 80) / 80  # a view of 90 degrees
            ray = np.array([np.cos(yaw) + right * np.sin(yaw), np.sin(yaw) - right * np.cos(yaw)])
            start, along = walls[:, 0] - where["place"], walls[:, 1] - walls[:, 0]
            with np.errstate(divide="ignore", invalid="ignore"):
                turn = ray[0] * along[:, 1] - ray[1] * along[:, 0]
                far = (start[:, 0] * along[:, 1] - start[:, 1] * along[:, 0]) / turn
                share = (start[:, 0] * ray[1] - start[:, 1] * ray[0]) / turn
            ratios.append(far[(far > 0) & (share >= 0) & (share <= 1)].min() / 7.25 - row[column])
    ratios = np.array(ratios)
    assert len(ratios) > 60
    assert (ratios > -1).mean() > 0.95  # nothing is seen through a wall
    assert (np.abs(ratios - 0.5) < 1.5).mean() > 0.4  # and often it is the wall itself


@renders
def test_the_eye_is_where_a_player_s_is(train: DoomFrames) -> None:
    """41 units above the floor: in the lowest row 71 units away, 10 levels of 7.25, less a seventh."""
    lowest = [record["depth"][-1] for record in train.records if (record["surface"][-1] == FLOOR).all()]
    assert len(lowest) > 4
    assert 7 <= np.median(lowest) <= 9


@renders
def test_another_size_has_its_horizon_in_the_middle(cache: Path) -> None:
    query = "train=1&val=2&height=144&width=256"
    source = open_doom_maps(query, "val")
    for i in range(2):
        surface = source.read_map(i)
        assert surface.shape == source.images.read(i).shape[1:] == (144, 256)
        assert not (surface[:72] == SURFACES.index("floor")).any()
        assert (surface[72:] == SURFACES.index("floor")).any()


def test_a_frame_is_taken_if_there_is_something_to_see() -> None:
    image = np.full((32, 32, 3), 40, np.uint8)
    depth, labels = np.full((32, 32), 20, np.uint8), np.zeros((32, 32), np.uint8)
    assert worth_it(image, depth, labels)
    assert not worth_it(image // 10, depth, labels)  # black
    near = depth.copy()
    near[:20] = 7
    assert not worth_it(image, near, labels)
    wrapped = depth.copy()
    wrapped[-1, 3] = 193
    assert not worth_it(image, wrapped, labels)
    hidden = labels.copy()
    hidden[:14] = 9
    assert not worth_it(image, depth, hidden)


def test_scenes_by_sky_and_mean_depth() -> None:
    surface, depth = np.full((10, 20), WALL, np.uint8), np.full((10, 20), 10, np.uint8)
    assert SCENES[scene(surface, depth)] == "nook"
    depth[:5] = 30
    assert SCENES[scene(surface, depth)] == "room"
    depth[:5] = 50
    assert SCENES[scene(surface, depth)] == "hall"
    surface[0, :5] = SKY
    assert SCENES[scene(surface, depth)] == "hall"
    surface[0, 5] = SKY
    assert SCENES[scene(surface, depth)] == "outdoors"


# --- the same everywhere --------------------------------------------------------------------------------

_ELSEWHERE = (
    "import sys; from lamina.data.samples.doom.sources import open_doom; open_doom(sys.argv[1], 'val')"
)


@renders
def test_another_process_renders_the_same_bytes(cache: Path, val: DoomFrames, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    environment = os.environ | {"LAMINA_CACHE": str(tmp_path / "cache")}
    subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, QUERY], check=True, cwd=tmp_path / "work", env=environment
    )
    [mine], [other] = val.records.files, (tmp_path / "cache" / "doom").iterdir()
    assert other.name == mine.name
    assert other.read_bytes() == mine.read_bytes()
    assert not list((tmp_path / "work").iterdir())  # vizdoom would leave its configuration there


@renders
def test_a_cache_is_used_unless_it_is_damaged(
    val: DoomFrames, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = val.records.files[0].read_bytes()
    copy = tmp_path / "doom" / val.records.files[0].name
    copy.parent.mkdir()
    copy.write_bytes(whole)
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path))

    def refuse(*_: object) -> None:
        raise AssertionError("rendered again")

    with monkeypatch.context() as patch:
        patch.setattr(doom_module, "render", refuse)
        assert open_doom(QUERY, "val").identity() == val.identity()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    copy.write_bytes(flipped)
    assert open_doom(QUERY, "val").identity() == val.identity()
    assert copy.read_bytes() == whole
    assert [file.name for file in copy.parent.iterdir()] == [copy.name]


@renders
def test_damage_is_seen(val: DoomFrames, tmp_path: Path) -> None:
    whole = val.records.files[0].read_bytes()
    file = tmp_path / "x.npy"
    size = DoomOptions().size
    assert not is_whole(file, 12, size)
    file.write_bytes(whole)
    assert is_whole(file, 12, size)
    assert not is_whole(file, 11, size)
    assert not is_whole(file, 12, (size[0], size[1] + 16))
    header = whole.replace(b"'image'", b"'imagx'", 1)
    for damaged in (
        b"",
        b"\x93NUMPY",
        whole[:100],
        whole[:-1],
        whole[: len(whole) // 2],
        b"x" * 5000,
        header,
    ):
        file.write_bytes(damaged)
        assert not is_whole(file, 12, size)


@renders
def test_workers_get_no_copy_of_the_frames(train: DoomFrames) -> None:
    train.read(0)
    sent = pickle.dumps(train)
    assert len(sent) < 20_000
    assert torch.equal(pickle.loads(sent).read(7), train.read(7))  # noqa: S301  # our own bytes


@renders
def test_it_is_opened_by_its_name(train: DoomFrames, val: DoomFrames) -> None:
    source = open_source(f"sample:doom?{QUERY}", "val")
    assert (source.identity(), held_out(f"sample:doom?{QUERY}")) == (val.identity(), "val")
    assert train.identity() != val.identity()


@renders
def test_it_passes_the_check(train: DoomFrames, val: DoomFrames) -> None:
    found = check(open_source(f"sample:doom?{QUERY}", "all"))
    assert found.ok
    assert (found.n_files, found.pixels, found.smallest) == (36, {"uint8 x 3": 36}, (160, 112))
    assert sum(found.classes.values()) == 36


@renders
def test_nothing_is_left_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    always = doom_render._CONSOLE + " +gl_cachetime 0"  # what it keeps of slow maps, of all of them
    monkeypatch.setattr(doom_render, "_CONSOLE", always)
    open_doom("train=1&val=1", "val")
    assert not list((tmp_path / "work").iterdir())


# --- what goes wrong ------------------------------------------------------------------------------------


def test_without_vizdoom_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(LaminaError, match=r"pip install 'lamina\[doom\]'") as error:
        open_source("sample:doom")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "query", ["train=0", "val=0", "height=100", "width=0", "wide=3", "seed=x", "seed=2147483648"]
)
def test_parameters_that_make_no_sense(query: str) -> None:
    with pytest.raises(LaminaError) as error:
        open_doom(query, None)
    assert "\n" not in str(error.value)


@renders
def test_sizes_and_folders_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path))
    with pytest.raises(LaminaError, match="renders no 160 x 4000 px"):
        open_doom("train=1&val=1&height=4000", None)
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LaminaError, match="set LAMINA_CACHE"):
        open_doom("train=1&val=1", None)


# --- WAD files ------------------------------------------------------------------------------------------


def test_plans_are_read_from_a_wad(tmp_path: Path) -> None:
    lumps = [
        ("MAP07", b""),
        ("THINGS", struct.pack("<5h", -64, 32, 90, 3001, 7)),
        ("LINEDEFS", struct.pack("<7H", 0, 1, 1, 0, 0, 0, 0xFFFF) + struct.pack("<7H", 1, 2, 4, 0, 0, 1, 2)),
        ("SIDEDEFS", b""),
        ("VERTEXES", struct.pack("<6h", -100, 0, 200, 50, 7, 8)),
        ("SEGS", b""),
    ]
    content, directory = b"", b""
    for name, lump in lumps:
        directory += struct.pack("<ii8s", 12 + len(content), len(lump), name.encode())
        content += lump
    file = tmp_path / "freedoom2.wad"
    file.write_bytes(struct.pack("<4sii", b"IWAD", len(lumps), 12 + len(content)) + content + directory)
    [plan] = read_plans(file)
    assert (plan.game, plan.name) == ("freedoom2", "MAP07")
    assert plan.things.tolist() == [[-64, 32]]
    assert plan.walls.tolist() == [[[-100, 0], [200, 50]]]  # the second line has two sides


def test_the_magenta_sky_is_a_wad_of_pictures(tmp_path: Path) -> None:
    from PIL import Image

    data = magenta_sky()
    _, count, start = struct.unpack_from("<4sii", data)
    entries = [struct.unpack_from("<ii8s", data, start + 16 * k) for k in range(count)]
    names = [name.rstrip(b"\0").decode() for _, _, name in entries]
    assert names == ["TX_START", "SKY1", "SKY2", "SKY3", "SKY4", "TX_END"]
    at, size, _ = entries[2]
    (tmp_path / "sky.png").write_bytes(data[at : at + size])
    with Image.open(tmp_path / "sky.png") as picture:
        assert picture.convert("RGB").getcolors() == [(256 * 128, MAGENTA)]
