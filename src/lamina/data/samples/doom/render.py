"""Frames of Doom maps with surface, object and depth of every pixel, rendered by vizdoom without a window.

vizdoom tells which pixels are of which object, but not sky from wall or floor from ceiling. The camera is
level, so floors are below the horizon and ceilings above it. For the sky a second game goes the same way
under a magenta one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from lamina.core.errors import LaminaError
from lamina.data.samples.doom.cameras import Place, places
from lamina.data.samples.doom.classes import CEILING, FARTHEST, FIRST_OBJECT, FLOOR, KIND_OF, SKY, WALL
from lamina.data.samples.doom.wad import MAGENTA, FloorPlan, magenta_sky

MOST_OBJECTS = 250
"""A frame with more of them is not taken."""

_SKILL = 4  # "Ultra-Violence": the most monsters that stand where the map puts them
# With nodes kept, or without these sections, vizdoom makes a folder where it was started, and reads what is
# in there.
_CONSOLE = "+sv_cheats 1 +cl_showsecretmessage 0 +gl_cachenodes 0"
_CONFIG = "".join(f"[{game}.AutoExec]\n" for game in ("Doom", "Heretic", "Hexen", "Strife", "Chex"))
_DEAF_TICS = 12  # a new map takes no orders before
_SETTLING_TICS = 3  # the eye needs so many to rise from the floor where it was put
_DRAWS_PER_FRAME = 200


class Shot(NamedTuple):
    """What the camera saw, pixel by pixel, and the kind of each object."""

    image: UInt8[np.ndarray, "H W 3"]
    surface: UInt8[np.ndarray, "H W"]
    depth: UInt8[np.ndarray, "H W"]
    kinds: tuple[int, ...]
    number: int
    """Which of the plans."""
    place: Place


def import_vizdoom() -> ModuleType:
    """The package; raises LaminaError where it is not installed."""
    try:
        import vizdoom
    except ImportError:
        raise LaminaError("sample:doom needs vizdoom; pip install 'lamina[doom]'") from None
    return vizdoom


def render(
    plans: Sequence[tuple[int, FloorPlan]], frames: int, size: tuple[int, int], seed: int
) -> Iterator[Shot]:
    """So many frames of `size` (height, width) from maps and their numbers, evenly, in the maps' order.

    Where a map has no room for its share, those after it take it over; maps of one game stand together.

    Raises:
        LaminaError: if vizdoom stops, or the maps have too little to show.
    """
    left, maps = frames, len(plans)
    for game in dict.fromkeys(plan.game for _, plan in plans):
        own = [(number, plan) for number, plan in plans if plan.game == game]
        with _camera(own[0][1], size) as camera:
            for number, plan in own:
                for shot in camera.shots(number, plan, -(-left // maps), seed):
                    left -= 1
                    yield shot
                maps -= 1
    if left:
        raise LaminaError(f"sample:doom finds {frames - left} of {frames} frames; ask for fewer")


@contextmanager
def _camera(first: FloorPlan, size: tuple[int, int]) -> Iterator[_Camera]:
    """Two games while they last; what vizdoom raises becomes a sentence."""
    vizdoom = import_vizdoom()
    with tempfile.TemporaryDirectory(prefix="lamina-doom-") as folder:
        sky = Path(folder, "sky.wad")
        sky.write_bytes(magenta_sky())
        config = Path(folder, "vizdoom.ini")
        config.write_bytes(_CONFIG.encode())
        games = [_game(vizdoom, first, size, config) for _ in range(2)]
        games[1].set_doom_scenario_path(str(sky))
        try:
            for game in games:
                game.init()
            yield _Camera(games[0], games[1], size)
        except LaminaError:
            raise
        except Exception as error:  # vizdoom's own classes have no common ancestor below this
            if type(error).__module__.split(".")[0] != "vizdoom":
                raise
            raise LaminaError(
                f"vizdoom stopped: {str(error).splitlines()[0]}; try sample:doom again"
            ) from None
        finally:
            for game in games:
                game.close()


def _game(vizdoom: ModuleType, first: FloorPlan, size: tuple[int, int], config: Path) -> Any:
    game = vizdoom.DoomGame()
    game.set_doom_config_path(str(config))
    game.set_doom_game_path(str(game_file(vizdoom, first.game)))
    game.set_doom_map(first.name)
    game.set_screen_resolution(_resolution(vizdoom, size))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_depth_buffer_enabled(True)
    game.set_labels_buffer_enabled(True)
    for what in ("hud", "weapon", "crosshair", "messages", "decals", "particles", "screen_flashes"):
        getattr(game, f"set_render_{what}")(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)  # the game waits for us, so time plays no part
    game.set_doom_skill(_SKILL)
    game.set_episode_timeout(0)
    game.set_available_buttons([vizdoom.Button.TURN_LEFT_RIGHT_DELTA])
    wanted = vizdoom.GameVariable
    game.set_available_game_variables([wanted.POSITION_X, wanted.POSITION_Y, wanted.ANGLE])
    game.add_game_args(_CONSOLE)
    return game


def game_file(vizdoom: ModuleType, game: str) -> Path:
    """The WAD of freedoom1 or freedoom2 in the package."""
    return Path(str(vizdoom.__file__)).parent / f"{game}.wad"


def _resolution(vizdoom: ModuleType, size: tuple[int, int]) -> Any:
    """The smallest that has room for the frame."""
    found = {}
    for name, value in vizdoom.ScreenResolution.__members__.items():
        width, height = (int(side) for side in name.removeprefix("RES_").split("X"))
        if height >= size[0] and width >= size[1]:
            found[width * height, width] = value
    if not found:
        raise LaminaError(f"vizdoom renders no {size[1]} x {size[0]} px; take a smaller size")
    return found[min(found)]


class _Camera:
    """Two games in step: one as it is, and one with a magenta sky."""

    def __init__(self, game: Any, twin: Any, size: tuple[int, int]) -> None:
        self._game, self._twin, self._size, self._yaw = game, twin, size, 0.0

    def shots(self, number: int, plan: FloorPlan, frames: int, seed: int) -> Iterator[Shot]:
        """At most so many shots of a map that are worth being looked at."""
        self._enter(plan, seed)
        for place in places(plan, seed, number, frames * _DRAWS_PER_FRAME):
            if not frames:
                return
            shot = self._look(number, place)
            if shot is not None:
                frames -= 1
                yield shot

    def _enter(self, plan: FloorPlan, seed: int) -> None:
        for game in (self._game, self._twin):
            game.set_doom_map(plan.name)
            game.set_seed(seed)
            game.new_episode()
            game.send_game_command("god")
            game.send_game_command("notarget")  # monsters stay where they are, and shoot at nobody
            game.advance_action(_DEAF_TICS, True)
        self._yaw = self._game.get_state().game_variables[2]

    def _look(self, number: int, place: Place) -> Shot | None:
        """A shot, or None where it is not worth it."""
        for game in (self._game, self._twin):
            game.send_game_command(f"warp {place.x} {place.y}")
            game.set_action([(self._yaw - place.yaw + 180) % 360 - 180])
            game.advance_action(1, False)
            game.set_action([0.0])
            game.advance_action(_SETTLING_TICS, False)
        self._game.advance_action(1, True)
        state = self._game.get_state()
        x, y, self._yaw = state.game_variables
        if abs(x - place.x) > 1 or abs(y - place.y) > 1:  # no room to stand there
            self._twin.advance_action(1, False)
            return None
        shot = self._shot(state, number, place)
        self._twin.advance_action(1, shot is not None)
        if shot is None:
            return None
        sky = (self._cut(self._twin.get_state().screen_buffer) == MAGENTA).all(-1)
        shot.surface[sky & (shot.surface == WALL)] = SKY
        return shot

    def _shot(self, state: Any, number: int, place: Place) -> Shot | None:
        """What the first game shows, sky still as wall."""
        depth, labels = self._cut(state.depth_buffer), self._cut(state.labels_buffer)
        if not worth_it(self._cut(state.screen_buffer), depth, labels):
            return None
        present = set(np.unique(labels).tolist())
        seen = [label for label in state.labels if label.value in present]
        known = all(label.object_category in KIND_OF for label in seen)
        if not known or len(seen) > MOST_OBJECTS or len(seen) < len(present - {0, 1}):
            return None  # an effect, such as a puff of smoke
        below = np.arange(len(labels)) >= len(labels) // 2
        surface = np.where(below[:, None], FLOOR, CEILING).astype(np.uint8) * (labels == 1)
        surface[labels == 0] = WALL
        for k, label in enumerate(seen):
            surface[labels == label.value] = FIRST_OBJECT + k
        image = self._cut(state.screen_buffer).copy()
        kinds = tuple(KIND_OF[label.object_category] for label in seen)
        return Shot(image, surface, np.minimum(depth, FARTHEST), kinds, number, place)

    def _cut(self, screen: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "H W *c"]:
        """The middle of the screen."""
        height, width = self._size
        top, left = (screen.shape[0] - height) // 2, (screen.shape[1] - width) // 2
        return screen[top : top + height, left : left + width]


def worth_it(
    image: UInt8[np.ndarray, "H W 3"], depth: UInt8[np.ndarray, "H W"], labels: UInt8[np.ndarray, "H W"]
) -> bool:
    """Whether there is something to see.

    Not if half of the frame is nearer than 58 map units (a wall), if it is nearly black, or if one object
    hides 40 % of it. Nor if the lowest row is far away: either the eye is in a ledge, where depth wraps
    around, or the camera looks off a cliff.
    """
    counts = np.bincount(labels.ravel(), minlength=256)[2:]
    checks: tuple[Bool[np.ndarray, ""], ...] = (
        np.median(depth) >= 8,
        image.mean() >= 12,
        counts.max() <= 0.4 * labels.size,
        depth[-1].max() <= FARTHEST,
    )
    return all(bool(check) for check in checks)
