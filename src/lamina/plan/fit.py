"""A recipe made to fit its images, its machine and a time budget, the same on all ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lamina.core.config import with_fields
from lamina.core.durations import duration_text
from lamina.core.errors import LaminaError
from lamina.data.read_as import read_as
from lamina.data.sources import Source
from lamina.plan.choose import choose
from lamina.plan.facts import look_at
from lamina.plan.machine import Machine, this_machine
from lamina.plan.options import Fitting
from lamina.plan.outlook import Outlook
from lamina.recipes.recipe import Recipe
from lamina.train.distributed import Ranks, from_main, gather_json, on_main
from lamina.train.options import plan_run

SPARE = 0.05
"""Share of a time budget that is left for what is no step: checkpoints, evaluations, pictures."""

WORTH_SAYING = 1.5
"""How much faster than in the recipe's precision a GPU has to multiply in its best one for a sentence."""


def fit_to_data(
    recipe: Recipe, source: Source, ranks: Ranks, fitting: Fitting
) -> tuple[Recipe, Outlook | None]:
    """The recipe with what is chosen, and rank 0's outlook; every rank calls this."""

    def look() -> Outlook:
        facts, machine = look_at(source, read_as(recipe.data, source)), this_machine(ranks)
        timed = fitting.seconds is not None
        changes = choose(facts, machine, recipe, fitting.given, timed) if fitting.choose else ()
        return Outlook(facts, machine, changes, _advice(machine, recipe, fitting))

    outlook = on_main(ranks, look)
    fields = {change.name: change.value for change in outlook.changes} if outlook else {}
    return with_fields(recipe, gather_json(fields, ranks)[0]), outlook


def fit_to_time(
    recipe: Recipe, images: int, ranks: Ranks, fitting: Fitting, step_seconds: Callable[[float], float]
) -> Recipe:
    """The recipe with as many steps as fit into the time, and a warm-up in proportion unless one is given;
    every rank calls this.

    Args:
        step_seconds: measures the seconds of a step, in about as many seconds as it is given; on each rank.
    """
    seconds = fitting.seconds
    if seconds is None:
        return recipe
    trial = trial_seconds(seconds)
    if ranks.main:
        print(
            f"measuring steps for {duration_text(trial)}, to fit the run into {duration_text(seconds)}",
            flush=True,
        )
    each = step_seconds(trial)
    count = from_main(int(((1 - SPARE) * seconds - trial) / each), ranks)
    if count < 1:
        raise LaminaError(
            f"{duration_text(seconds)} is too short: one step of this run takes {duration_text(each)}; give "
            "more time, or a smaller network or batch"
        )
    recipe = with_fields(recipe, _of_length(recipe, images, count, fitting))
    if ranks.main:
        epochs = count * recipe.train.batch_size / images
        print(
            f"{count:,} steps ({epochs:,.3g} epochs) fit into {duration_text(seconds)}: a step takes "
            f"{each:.3g} s, and {100 * SPARE:.0f} % of the time is left for evaluations and checkpoints",
            flush=True,
        )
    return recipe


def _advice(machine: Machine, recipe: Recipe, fitting: Fitting) -> tuple[str, ...]:
    """A sentence where a recipe's precision, which nobody has asked for, is not the fastest on a GPU."""
    own, best = recipe.train.precision, machine.precision
    if fitting.choose or "train.precision" in fitting.given or machine.device == "cpu" or own == best:
        return ()
    faster = machine.rates[best] / machine.rates[own] if own in machine.rates else 1.0
    if faster <= WORTH_SAYING:
        return ()
    times = f"{faster:.3g} times as fast with --precision {best}"
    return (f"{own} is the recipe's precision; this GPU multiplies {times}",)


def estimated_length(recipe: Recipe, outlook: Outlook, fitting: Fitting) -> Recipe:
    """The recipe with as many steps as would fit into the time budget by the outlook's estimate; as it is,
    where there is no budget or no estimate."""
    seconds, images = outlook.seconds(recipe), outlook.facts.images
    if fitting.seconds is None or seconds is None:
        return recipe
    each = seconds / plan_run(recipe.train, images).total_steps
    count = max(1, int((1 - SPARE) * fitting.seconds / each))
    return with_fields(recipe, _of_length(recipe, images, count, fitting))


def trial_seconds(seconds: float) -> float:
    """How long steps are measured for a time budget: 3 % of it, five seconds to a minute, a fifth at most."""
    return min(60.0, max(5.0, 0.03 * seconds), 0.2 * seconds)


def _of_length(recipe: Recipe, images: int, steps: int, fitting: Fitting) -> dict[str, Any]:
    """Fields of the recipe for so many steps in place of its own length: its warm-up keeps its share of the
    run, unless one was given."""
    fields: dict[str, Any] = {"train.max_steps": steps}
    longer, optim = steps / plan_run(recipe.train, images).total_steps, recipe.optim
    if {"optim.warmup_epochs", "optim.warmup_steps"} & fitting.given:
        return fields
    if optim.warmup_steps is not None:
        return {**fields, "optim.warmup_steps": round(optim.warmup_steps * longer)}
    return {**fields, "optim.warmup_epochs": float(f"{optim.warmup_epochs * longer:.3g}")}
