"""Settings that fit the images and the machine, for what nobody has set."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lamina.core.choices import unread
from lamina.core.config import with_fields
from lamina.recipes.recipe import TIMM_NAMES, Recipe, Size

if TYPE_CHECKING:
    from lamina.plan.facts import ImageFacts
    from lamina.plan.machine import Machine

SMALL_PX = 160
"""Below this side of its images, a network has the decoder, the crop and the learning rate of `mae-small`."""

WARMUP_SHARE = 0.05
"""Share of a run in which the learning rate rises: 40 of MAE's 800 epochs."""

FEWEST_STEPS = 12_500
"""About as many steps as a run takes at least: where images are few, the batch is small."""

MOST_IMAGES = 1_024_000_000
"""Most images that a run reads, each counted as often as it is read: MAE's 800 epochs of ImageNet."""

MOST_IMAGES_ON_CPU = 2_000_000
"""The same without a GPU: hours, for the small network that is chosen there."""


class Row(NamedTuple):
    """What suits so many images."""

    images: float
    """Up to so many."""
    size: Size
    epochs: float
    batch_size: int
    """At most."""


ROWS = (
    Row(200, "ti", 2000, 256),
    Row(1_000, "ti", 1600, 256),
    Row(10_000, "ti", 800, 256),
    Row(100_000, "s", 400, 256),
    Row(1_000_000, "s", 200, 512),
    Row(math.inf, "b", 100, 4096),
)
"""docs/which-recipe.md shows these and says where they come from."""

_GRIDS = ((16, 160, 224), (8, 64, 96), (4, 24, 48), (2, 8, 20))
"""Patch side, smallest and largest image side that it is taken for, all in pixels: 16 to 196 patches."""


WORDS = {
    "encoder.name": "network",
    "encoder.image_size": "image size",
    "encoder.patch_size": "patch size",
    "encoder.in_chans": "channels",
    "encoder.mean": "channel statistics",
    "encoder.std": "channel statistics",
    "decoder.width": "decoder",
    "decoder.depth": "decoder",
    "decoder.heads": "decoder",
    "data.eval_crop_share": "crop of evaluations",
    "data.workers": "workers",
    "optim.base_lr": "learning rate",
    "optim.warmup_epochs": "warm-up",
    "train.precision": "precision",
    "train.epochs": "epochs",
    "train.batch_size": "batch size",
}
"""The fields that may be chosen, and what people call them."""


class Change(NamedTuple):
    """A field of the recipe, its value, and why, as the end of a sentence."""

    name: str
    value: Any
    reason: str


def choose(
    facts: ImageFacts, machine: Machine, recipe: Recipe, given: Collection[str], timed: bool = False
) -> tuple[Change, ...]:
    """What fits the images and the machine, for the fields of `recipe` that nobody has set; nothing is read
    or measured here.

    Args:
        recipe: what the run starts from, with what was given in it.
        given: dotted names of the fields that were given: they stay as they are. What a given field decides,
            such as the patch of a named network, stays too.
        timed: whether the number of steps will follow from a time budget.
    """
    chosen: dict[str, Change] = {}
    for change in _changes(facts, machine, recipe, set(given), timed):
        if change.name not in given and change.name not in unread(recipe):
            chosen[change.name] = change
            recipe = with_fields(recipe, {change.name: change.value})
    warmup = None if timed else warmup_epochs(recipe, facts.images, given)
    return (*chosen.values(), *([] if warmup is None else [warmup]))


def row_for(images: int) -> Row:
    """The row of the table for so many images."""
    return next(row for row in ROWS if images <= row.images)


def warmup_epochs(recipe: Recipe, images: int, given: Collection[str]) -> Change | None:
    """The warm-up that suits the length of the run, unless one is given."""
    if {"optim.warmup_epochs", "optim.warmup_steps"} & set(given):
        return None
    train = recipe.train
    steps = train.max_steps
    epochs = train.epochs if steps is None else steps * train.batch_size / max(images, 1)
    value = float(f"{WARMUP_SHARE * epochs:.3g}")
    return Change("optim.warmup_epochs", value, f"{100 * WARMUP_SHARE:.0f} % of the run, as in MAE")


def _changes(
    facts: ImageFacts, machine: Machine, recipe: Recipe, given: set[str], timed: bool
) -> Iterator[Change]:
    named = bool(given & {"encoder.name", "encoder.width", "encoder.depth", "encoder.heads"})
    if not named:
        yield from _network(facts, machine, recipe, given)
    side = _side_of(recipe) or (None if named else _grid(facts, machine)[1])
    if side is not None and side < SMALL_PX:
        yield Change("data.eval_crop_share", 1.0, "small images are evaluated whole")
        yield Change("optim.base_lr", 1e-3, "the rate of mae-small, for small images")
    yield from _channels(facts, given)
    yield Change("train.precision", machine.precision, f"the fastest on {machine}, as measured")
    if machine.device == "cuda":
        yield Change("data.workers", min(16, machine.cores), f"{machine.cores} processor cores for each GPU")
    yield from _length(facts, machine, recipe, given, timed)


def _network(facts: ImageFacts, machine: Machine, recipe: Recipe, given: set[str]) -> Iterator[Change]:
    """The encoder, the size of its images and patches, and a decoder that suits it."""
    on_cpu = machine.device == "cpu"
    size: Size = "ti" if on_cpu else row_for(facts.images).size
    why = "small enough for a processor" if on_cpu else f"for {facts.images:,} images"
    yield Change("encoder.name", TIMM_NAMES[size], why)
    given_side, own_patch = _side_of(recipe), recipe.encoder.patch_size
    patch, side = _grid(replace(facts, height=given_side, width=given_side) if given_side else facts, machine)
    if given_side is not None:
        if not any(px % patch for px in recipe.encoder.image_size or ()):
            yield Change("encoder.patch_size", patch, f"for images of {given_side} px")
    elif own_patch is None or side % own_patch == 0:
        yield Change("encoder.image_size", (side, side), _why_side(facts, on_cpu))
        yield Change("encoder.patch_size", patch, f"for images of {side} px")
    is_small = size == "ti" or (given_side or side) < SMALL_PX
    if is_small and not any(name.startswith("decoder.") for name in given):
        for name, value in (("width", 128), ("depth", 4), ("heads", 4)):
            yield Change(f"decoder.{name}", value, "in proportion to the encoder")


def _length(
    facts: ImageFacts, machine: Machine, recipe: Recipe, given: set[str], timed: bool
) -> Iterator[Change]:
    """Epochs, where the length is not given in epochs, steps or time, and the batch."""
    row, n = row_for(facts.images), max(facts.images, 1)
    most = MOST_IMAGES_ON_CPU if machine.device == "cpu" else MOST_IMAGES
    epochs, why_images = float(f"{max(1.0, min(row.epochs, most / n)):.2g}"), f"for {facts.images:,} images"
    why = why_images
    if epochs < row.epochs:
        why = f"at most {most:,} images are read, repetitions counted"
    if "train.epochs" in given:
        epochs = recipe.train.epochs
    elif recipe.train.max_steps is None and not timed:
        yield Change("train.epochs", epochs, why)
    size = min(row.batch_size, max(16, _power_of_two(epochs * n / FEWEST_STEPS)), _power_of_two(n))
    size = -(-size // machine.ranks) * machine.ranks
    why = "so small that few images make many steps" if size < row.batch_size else why_images
    yield Change("train.batch_size", size, why)


def _channels(facts: ImageFacts, given: set[str]) -> Iterator[Change]:
    if facts.channels == 3 or "encoder.in_chans" in given:
        return
    channels = f"the images have {facts.channels} channel" + ("s" if facts.channels != 1 else "")
    yield Change("encoder.in_chans", facts.channels, channels)
    for name in ("mean", "std"):
        yield Change(f"encoder.{name}", "auto", "measured, since the usual ones are of colour images")


def _side_of(recipe: Recipe) -> int | None:
    """The shorter side of the images that the recipe asks for."""
    return min(recipe.encoder.image_size) if recipe.encoder.image_size else None


def _grid(facts: ImageFacts, machine: Machine) -> tuple[int, int]:
    """Patch and side of the network's images: no larger than the images are, and on a processor small."""
    most = 64 if machine.device == "cpu" else 224
    side = min(facts.side or most, most)
    for patch, low, high in _GRIDS:
        if side >= low:
            return patch, int(min(side, high) // patch * patch)
    return _GRIDS[-1][:2]


def _why_side(facts: ImageFacts, on_cpu: bool) -> str:
    if facts.side is None:
        return "the usual size"
    found = f"the images' shorter side is about {facts.side:.0f} px"
    return f"{found}, and a processor is slow" if on_cpu and facts.side > 64 else found


def _power_of_two(value: float) -> int:
    """The largest power of two up to a value, or 1."""
    return 1 << max(0, math.floor(math.log2(value))) if value >= 1 else 1
