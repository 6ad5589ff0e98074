"""From a recipe and a folder of images to a trained run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from lamina.callbacks.bad_files import FaultMonitor
from lamina.callbacks.encoder_monitor import BiasMonitor, EncoderMonitor, plan_monitor
from lamina.callbacks.export_encoder import EncoderExport
from lamina.callbacks.fusion_monitor import FusionMonitor
from lamina.cmae.cmae import CMAE
from lamina.core.choices import unread
from lamina.core.config import flatten, to_mapping
from lamina.core.terminal import tolerant_output
from lamina.core.text import printable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import Spec, open_source
from lamina.data.sources import Source
from lamina.interop.backbone import Backbone
from lamina.interop.complete import CompleteRecipe, complete
from lamina.interop.init_weights import init_from_file
from lamina.interop.load_weights import Loaded
from lamina.interop.resizing import copy_weights
from lamina.masking.attention_guided import AttentionGuidedMasking
from lamina.mim import mim_of
from lamina.plan.fit import fit_to_data, fit_to_time
from lamina.plan.options import AS_GIVEN, Fitting
from lamina.recipes.build import Task, build_task
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import DataFacts, check_same_images, data_facts, other_copy_note
from lamina.runs.resumable_folder import Started
from lamina.runs.run import Run
from lamina.runs.same_settings import begin_or_change, changes_on_resume
from lamina.supervised.classifier import Supervised
from lamina.train import checkpoint
from lamina.train.calibrate import seconds_per_step
from lamina.train.callbacks import Callback
from lamina.train.distributed import Ranks, from_main, process_group
from lamina.train.loop import fit
from lamina.train.options import plan_run
from lamina.train.state import Outcome

MoreCallbacks = Callable[[Run, Source], Sequence[Callback]]


def run_pretrain(
    recipe: Recipe,
    data: Spec,
    out: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    init: str | Path | Backbone | None = None,
    callbacks: MoreCallbacks | None = None,
    source: Source | None = None,
    content: str = "",
    fitting: Fitting = AS_GIVEN,
) -> Outcome:
    """Pre-train by `recipe` on the images of `data`, into the folder `out`; call it on every rank.

    `init` is what the encoder starts from: a weights file, a run, or an encoder that is open. With `resume`
    the run in `out` goes on (or starts, where there is none). `callbacks` makes more of them from the run and
    its images. `source` are the images where they are open, or some of those that `data` names.
    `content`, where it is given, is a digest of what they hold, which a resumed run has to find again.
    `fitting` says what of the recipe follows from images, machine and time; a run that goes on keeps its own.

    Raises:
        LaminaError: where the options, the data or the folder are invalid.
    """
    run = Run(out)
    with (
        tolerant_output(),
        process_group(recipe.train.device) as ranks,
        run.opened(ranks, resume=resume, overwrite=overwrite) as folder,
    ):
        if source is None:
            source = open_source(data)
            print_notes(source, ranks)
        facts = data_facts(data, source, content)
        going_on = bool(from_main(int(resume and run.exists()), ranks))
        own, given = (run.recipe() if going_on else None), _init_name(init)
        if going_on and not isinstance(init, Backbone):
            init = run.init()
        outlook = None
        if going_on:
            tell_kept_length(run, fitting, ranks)
            if ranks.main and (note := other_copy_note(run.data(), facts)):
                print(printable(f"data: {note}"), flush=True)
        else:
            recipe, outlook = fit_to_data(recipe, source, ranks, fitting)
        recipe, target, teacher = completed = complete(recipe, source, init, own)
        if not going_on:
            recipe = _fit_to_time(completed, source, ranks, fitting)
        for line in outlook.lines(recipe, fitting.seconds) if outlook else ():
            print(printable(line), flush=True)
        method = build_task(recipe, target, teacher)
        changed = changes_of_run(run, recipe, facts, given) if going_on else None
        if init is not None and not (going_on and checkpoint.steps(run.checkpoints)):
            _begin(method, init, recipe, ranks)
        loader = _loader(recipe, source, method, ranks)
        loader.budget.content_counts = bool(content)
        monitors = _monitors(recipe, data, source, method, ranks)
        start, change = partial(run.start, recipe, facts, given), partial(run.change, recipe)
        begin_or_change(ranks, folder, start, changed, change)
        ours = [
            *([Started(folder)] if folder else []),
            *monitors,
            FaultMonitor(loader.budget),
            EncoderExport(run.encoder, recipe.encoder, recipe.fusion, recipe.data),
            *(callbacks(run, source) if callbacks and ranks.main else ()),
        ]
        return fit(method, loader, recipe.optim, recipe.train, run.path, ours, resume=going_on)


def tell_kept_length(run: Run, fitting: Fitting, ranks: Ranks) -> None:
    """Say, where a time budget is given to a run that goes on, that it keeps its number of steps."""
    if fitting.seconds is not None and ranks.main:
        steps = plan_run(run.recipe().train, run.data().images).total_steps
        print(f"--time has no effect on a run that goes on: it keeps its {steps:,} steps", flush=True)


def _fit_to_time(completed: CompleteRecipe, source: Source, ranks: Ranks, fitting: Fitting) -> Recipe:
    """The recipe with as many steps as fit into the time budget, where there is one: measured on a method and
    a loader of their own."""

    def step_seconds(seconds: float) -> float:
        method = build_task(recipe, completed.target, completed.teacher)
        ahead = recipe.data.workers * recipe.data.prefetch_batches
        loader = _loader(recipe, source, method, ranks)
        return seconds_per_step(
            method, loader, recipe.optim, recipe.train, ranks, seconds=seconds, ahead=ahead
        )

    recipe = completed.recipe
    return fit_to_time(recipe, len(source), ranks, fitting, step_seconds)


def _monitors(recipe: Recipe, data: Spec, source: Source, method: Task, ranks: Ranks) -> list[Callback]:
    """The callbacks that measure the method; prints how often the encoder is evaluated, and at what cost."""
    monitors: list[Callback] = [FusionMonitor(), BiasMonitor(method.fusion.layers, method.encoder.depth)]
    plan = plan_monitor(recipe, data, source, method, ranks.world)
    if plan is not None:
        if ranks.main:
            print(plan, flush=True)
        if plan.every_steps is not None:
            monitors.append(EncoderMonitor(plan, recipe))
    return monitors


def _begin(method: Task, init: str | Path | Backbone, recipe: Recipe, ranks: Ranks) -> None:
    """Initialise the encoder, and its slow copy where the method has one, from the given weights."""
    warning = None
    if isinstance(init, Backbone):
        resampled = copy_weights(method.encoder, init)
        loading = "positions resampled to the new grid" if resampled else "all of its weights"
    else:
        loaded = init_from_file(method.encoder, init, recipe.encoder.init_channels)
        loading, warning = str(loaded), _other_statistics(loaded, recipe)
    if isinstance(method, CMAE):
        method.restart_target()
    if isinstance(method, Supervised):
        method.restart_average()
    if (eps := recipe.encoder.norm_eps) is not None:
        loading = f"{loading}; layer norms with an epsilon of {eps:g}"
    if ranks.main:
        print(printable(f"starting from {_init_name(init)}: {loading}"), flush=True)
        if warning:
            print(printable(warning), file=sys.stderr, flush=True)


def _init_name(init: str | Path | Backbone | None) -> str | None:
    """The name of the weights that training starts from, as the run's recipe has it."""
    if isinstance(init, Backbone):
        return "a backbone" if init.origin is None else init.origin.name
    return None if init is None else str(init)


def print_notes(source: Source, ranks: Ranks) -> None:
    """Print the notes of the images: what was found beside them and is not used."""
    for note in source.notes if ranks.main else ():
        print(printable(f"data: {note}"), flush=True)


def _other_statistics(loaded: Loaded, recipe: Recipe) -> str | None:
    mean, std = recipe.encoder.mean, recipe.encoder.std
    assert isinstance(mean, tuple)
    assert isinstance(std, tuple)
    return loaded.other_statistics(mean, std)


def _loader(recipe: Recipe, source: Source, method: Task, ranks: Ranks) -> TrainLoader:
    inner = mim_of(method)
    # Masks by a teacher's scores are drawn where the teacher is.
    masking = None if inner is None or isinstance(inner.masking, AttentionGuidedMasking) else inner.masking
    height, width = recipe.encoder.image_size  # type: ignore[misc]
    return TrainLoader(
        source,
        recipe.data,
        recipe.train.seed,
        recipe.train.batch_size,
        ranks.rank,
        ranks.world,
        image_size=(height, width),
        in_chans=recipe.encoder.in_chans,
        masking=masking,
        statistics=(recipe.encoder.mean, recipe.encoder.std),  # type: ignore[arg-type]  # resolved
        grid=method.encoder.grid,
    )


def changes_of_run(
    run: Run, recipe: Recipe, facts: DataFacts, init: str | None
) -> dict[str, tuple[object, object]]:
    """The options that a resumed run changes and that have to be written down; see `changes_on_resume`.

    Args:
        recipe: that of now, complete.
        facts: the images of now.
        init: what was given to start from now; None is fine for a run that started from something.

    Raises:
        LaminaError: where the run would compute something else than it would have computed.
    """
    own = run.recipe()
    before, now = flatten(to_mapping(own)), flatten(to_mapping(recipe))
    if init is not None:
        before["init"], now["init"] = run.init(), init
    unread_by_both = set(unread(own)) & set(unread(recipe))
    changed = changes_on_resume(before, now, run.recipe_file, recipe.train, unread_by_both)
    check_same_images(run.data(), facts, run.path)
    return changed
