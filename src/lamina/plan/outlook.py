"""A run that is about to start, in a sentence: images, machine, network, length and an estimate of its
time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.core.durations import duration_text
from lamina.encoder.options import EncoderOptions
from lamina.plan.choose import WORDS, Change
from lamina.plan.facts import ImageFacts
from lamina.plan.flops import count_flops
from lamina.plan.machine import Machine
from lamina.recipes.recipe import TIMM_NAMES, Recipe
from lamina.train.options import plan_run

LOADING = 1.6
"""Time for reading, cropping and hiding over that for decoding alone, for photographs of 500 x 375 px."""

SMALL = 0.5
"""Images are called too small for a network where their side is below this share of the network's."""

_TITLES = {"ti": "ViT-Ti", "s": "ViT-S", "b": "ViT-B", "l": "ViT-L", "h": "ViT-H"}


@dataclass(frozen=True)
class Outlook:
    """What is known of a run before its first step."""

    facts: ImageFacts
    machine: Machine
    changes: tuple[Change, ...] = ()
    """What was chosen for these images and this machine."""
    advice: tuple[str, ...] = ()
    """Sentences on what nobody has set, and would be set otherwise."""

    def lines(self, recipe: Recipe, budget: float | None = None) -> list[str]:
        """Sentences for a user, of a resolved recipe: the run, what was chosen, and what may be a mistake.

        Args:
            budget: seconds that the run was fitted into, in place of an estimate.
        """
        seconds = self.seconds(recipe) if budget is None else budget
        said = [f"data: {note}" for note in self.facts.notes]
        said += [f"{self.facts}, {self.machine}: {self._run(recipe, seconds)}"]
        if self.changes:
            how = "change with --epochs, --time 2h or --recipe NAME"
            said.append(f"{chosen_text(self.changes)} (--dry-run says why); {how}")
        return [*said, *self.advice, *self.warnings(recipe)]

    def _run(self, recipe: Recipe, seconds: float | None) -> str:
        plan = plan_run(recipe.train, self.facts.images)
        epochs = plan.epoch(plan.total_steps) if recipe.train.max_steps else recipe.train.epochs
        about = "" if seconds is None else f", about {duration_text(seconds)}"
        return (
            f"{network_text(recipe.encoder)}, {recipe.train.precision}, {epochs:,.4g} epochs "
            f"({plan.total_steps:,} steps of {plan.batch_size:,}){about}"
        )

    def seconds(self, recipe: Recipe) -> float | None:
        """An estimate of the run's time: operations over the machine's rate, or the loader's work over its
        processes, whichever is longer; None where the rate is not known."""
        rate = self.machine.step_rate(recipe.train.precision)
        steps = plan_run(recipe.train, self.facts.images).total_steps
        if rate is None:
            return None
        computing = count_flops(recipe).training / rate
        loading = LOADING * (self.facts.decode_seconds or 0.0) / self.machine.ranks
        workers = recipe.data.workers
        each = max(computing, loading / workers) if workers else computing + loading
        return steps * recipe.train.batch_size * each

    def warnings(self, recipe: Recipe) -> list[str]:
        """Sentences on images that do not fit the network, and on a batch that does not fit the images."""
        found, side = [], min(recipe.encoder.image_size or (0,))
        if self.facts.side is not None and self.facts.side < SMALL * side:
            found.append(
                f"the images' shorter side is about {self.facts.side:.0f} px and the network's {side} px, so "
                "that most of what it sees is interpolated; give a smaller --image-size and --patch-size"
            )
        if recipe.train.batch_size > self.facts.images:
            found.append(
                f"a batch of {recipe.train.batch_size:,} holds each of the {self.facts.images:,} images more "
                "than once on average; give a smaller --batch-size"
            )
        return found


def chosen_text(changes: Sequence[Change]) -> str:
    """Which settings were chosen."""
    words = dict.fromkeys(WORDS[change.name] for change in changes)
    return f"chosen for these images and this machine: {', '.join(words)}"


def network_text(encoder: EncoderOptions) -> str:
    """A resolved encoder in words: ViT-S/16 at 224 px."""
    sizes = {name: _TITLES[size] for size, name in TIMM_NAMES.items()}
    own = encoder.width, encoder.depth, encoder.heads
    title = sizes.get(encoder.name, encoder.name) if own == (None, None, None) else _of_size(encoder)
    height, width = encoder.image_size or (0, 0)
    at = f"{height}" if height == width else f"{height} x {width}"
    return f"{title}/{encoder.patch_size} at {at} px"


def _of_size(encoder: EncoderOptions) -> str:
    parts = (("width", encoder.width), ("depth", encoder.depth), ("heads", encoder.heads))
    return f"{encoder.name} ({', '.join(f'{name} {value}' for name, value in parts if value)})"
