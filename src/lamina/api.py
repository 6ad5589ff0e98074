"""Pre-training from Python, with the names of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lamina.core.choices import check_read
from lamina.core.config import with_fields
from lamina.core.durations import parse_duration
from lamina.core.errors import LaminaError
from lamina.data.open import Spec
from lamina.data.sources import Source
from lamina.evaluate.finetune.recipes import FinetuneRecipe, finetune_recipes
from lamina.methods.catalog import recipe as named_recipe
from lamina.plan.options import fitting_of
from lamina.pretraining import run_pretrain
from lamina.recipes.recipe import Recipe
from lamina.recipes.short_names import SHORT_NAMES
from lamina.report.live import LiveReport
from lamina.report.tokenizer import TokenizerReport
from lamina.runs.default_folder import default_run_folder
from lamina.runs.run import Run
from lamina.tokenizer.folder import TokenizerFolder
from lamina.tokenizer.options import TokenizerOptions
from lamina.train.callbacks import Callback
from lamina.train.state import Outcome


def pretrain(
    data: Spec,
    out: str | Path | None = None,
    recipe: str | Recipe | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: str | Path | None = None,
    encoder: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    patch_size: int | None = None,
    in_chans: int | None = None,
    mean: Sequence[float] | Literal["auto"] | None = None,
    std: Sequence[float] | Literal["auto"] | None = None,
    fusion: Literal["none", "mff"] | None = None,
    mask_ratio: float | None = None,
    epochs: float | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    base_lr: float | None = None,
    workers: int | None = None,
    device: str | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    seed: int | None = None,
    checkpoint_every_steps: int | None = None,
    time: str | float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Outcome:
    """Pre-train on a folder of images and keep everything in the run folder `out`, by default runs/NAME,
    named after the images.

    Arguments left at None are the recipe's; on a resume the recipe is the run's own. Without a recipe it is
    "mae", with settings that fit the images and the machine for what is left at None
    (`lamina.plan.choose`). `time` is a wall-clock budget, such as "2h" or a number of seconds, in place of
    `epochs` and `max_steps`: the speed of real steps is measured first, and the number of steps follows from
    it. `options` sets any other field by its dotted name, such as {"fusion.layers": [0, 2, 11]}.

    Raises:
        LaminaError: one line that says what is wrong and how to mend it.
    """
    given = locals()
    out = default_run_folder(data) if out is None else out
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    short = {dotted: given[name] for name, dotted in SHORT_NAMES.items() if given[name] is not None}
    if sides is not None:
        short["encoder.image_size"] = sides
    fields = {**short, **(options or {})}
    seconds = parse_duration(time) if isinstance(time, str) else time
    return run_pretrain(
        apply_options(starting_recipe(recipe, out, resume), fields),
        data,
        out,
        resume=resume,
        overwrite=overwrite,
        init=init,
        callbacks=report_callbacks,
        fitting=fitting_of(fields, recipe, init, seconds),
    )


def starting_recipe(recipe: str | Recipe | None, out: str | Path, resume: bool) -> Recipe:
    """What options are applied to: the run's own recipe on a resume, else the named one.

    Raises:
        LaminaError: for a name that is unknown, or not that of the run that is to go on.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if resume and Run(out).exists():
        own = Run(out).recipe()
        if recipe not in (None, own.name):
            raise LaminaError(
                f"the run in {out} goes on with its own recipe, {own.name}; leave out {recipe!r}"
            )
        return own
    return named_recipe(recipe or "mae")


def apply_options(recipe: Recipe, options: Mapping[str, Any]) -> Recipe:
    """The recipe with fields set by their dotted names; raises for one that the others switch off."""
    chosen = with_fields(recipe, options)
    check_read(recipe, chosen)
    return chosen


def report_callbacks(run: Run, source: Source) -> Sequence[Callback]:
    """The report that is rewritten while a run trains."""
    return [LiveReport.for_source(run.path, source)]


def tokenizer_callbacks(
    folder: TokenizerFolder, held_out: Source, options: TokenizerOptions
) -> Sequence[Callback]:
    """The report that a tokenizer's training ends with."""
    return [TokenizerReport(folder, held_out, options)]


def recipe(name: str) -> Recipe | FinetuneRecipe:
    """The recipe of that name, of a method or of a protocol.

    Raises:
        LaminaError: where there is none of that name, with the names there are.
    """
    known = finetune_recipes()
    return known[name]() if name in known else named_recipe(name)
