"""From a recipe and a folder of images to a trained run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lamina.callbacks.bad_files import FaultMonitor
from lamina.callbacks.encoder_monitor import BiasMonitor, EncoderMonitor, open_looks
from lamina.callbacks.export_encoder import EncoderExport
from lamina.callbacks.fusion_monitor import FusionMonitor
from lamina.cmae.cmae import CMAE
from lamina.core.choices import unread
from lamina.core.config import differences
from lamina.core.errors import LaminaError
from lamina.core.terminal import tolerant_output
from lamina.data.decode.unreadable import Unreadable
from lamina.data.file_names import printable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import Spec, open_source
from lamina.data.options import raised_limits
from lamina.data.sources import Source, names_sha256
from lamina.data.stats import channel_stats
from lamina.encoder.options import EncoderOptions
from lamina.interop.backbone import Backbone
from lamina.interop.init_weights import start_from, with_epsilon_of
from lamina.interop.load_weights import Loaded
from lamina.interop.resizing import adopt
from lamina.interop.teachers import open_target, open_teacher
from lamina.masking.attention_guided import ScoredMasking
from lamina.mim import mim_of
from lamina.recipes.build import Task, build_task, resolve
from lamina.recipes.recipe import Recipe
from lamina.runs.resumable_folder import Started, begin_on_main
from lamina.runs.run import DataFacts, Run
from lamina.supervised.classifier import Supervised
from lamina.supervised.labels import check_labels
from lamina.train import checkpoint
from lamina.train.callbacks import Callback
from lamina.train.distributed import Ranks, from_main, on_main, process_group
from lamina.train.divergence import remedies
from lamina.train.loop import fit
from lamina.train.state import Outcome

FREE_ON_RESUME = (
    "data.workers",
    "data.prefetch_batches",
    "data.worker_timeout_seconds",
    "data.bad_files_max_share",
    "data.bad_files_min",
    "train.device",
    "train.checkpoint_every_steps",
    "train.checkpoint_every_seconds",
    "train.keep_checkpoints",
    "train.nonfinite_limit",
    "train.tensorboard",
    "monitor.images",
    "monitor.knn_data",
    "monitor.every_steps",
)
"""Options that a resumed run may change: the weights do not depend on them. It may also raise the limits of a
file's size and time (`raised_limits`), which is written down, and one that diverged may change `remedies`."""

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
) -> Outcome:
    """Pre-train by `recipe` on the images of `data`, into the folder `out`; call it on every rank.

    `init` is what the encoder starts from: a weights file, a run, or an encoder that is open. With `resume`
    the run in `out` goes on (or starts, where there is none). `callbacks` makes more of them from the run and
    its images. `source` are the images where they are open, or some of those that `data` names.
    `content`, where it is given, is a digest of what they hold, which a resumed run has to find again.

    Raises:
        LaminaError: for anything in the options, the data or the folder that cannot be meant.
    """
    run = Run(out)
    with (
        tolerant_output(),
        process_group(recipe.train.device) as ranks,
        run.opened(ranks, resume=resume, overwrite=overwrite) as folder,
    ):
        if source is None:
            source = open_source(data)
            tell_notes(source, ranks)
        _look(source, recipe)
        facts = data_facts(data, source)._replace(content=content)
        going_on = bool(from_main(int(resume and run.exists()), ranks))
        recipe = _with_epsilon(recipe, run.recipe().encoder if going_on else None, init)
        recipe = resolve(with_classes(_measure(recipe, source), source))
        recipe, target = open_target(recipe)
        recipe, teacher = open_teacher(recipe)
        method = build_task(recipe, target, teacher)
        if recipe.method != "supervised":
            method.encoder.check_hiding()
        if going_on:
            other = _check_same(run, recipe, facts, _called(init))
            init = init if isinstance(init, Backbone) else run.init()
        check_init(recipe, init)
        if init is not None and not (going_on and checkpoint.steps(run.checkpoints)):
            _begin(method, init, recipe, ranks)
        loader = _loader(recipe, source, method, ranks)
        loader.budget.content_counts = bool(content)
        watching = _watching(recipe, data, source, method, ranks)
        if not going_on:
            begin_on_main(ranks, folder, lambda: run.start(recipe, facts, _called(init)))
        elif other:
            on_main(ranks, lambda: _change(run, recipe))
        ours = [
            *([Started(folder)] if folder else []),
            *watching,
            FaultMonitor(loader.budget),
            EncoderExport(run.encoder, recipe.encoder, recipe.fusion, recipe.data.eval_crop_share),
            *(callbacks(run, source) if callbacks and ranks.main else ()),
        ]
        return fit(method, loader, recipe.optim, recipe.train, run.path, ours, resume=going_on)


def _change(run: Run, recipe: Recipe) -> None:
    """Write down that a run goes on with other options; say which limits of files they raise."""
    tell_raised_limits(differences(run.recipe(), recipe))
    run.change(recipe)


def tell_raised_limits(changed: Mapping[str, tuple[object, object]]) -> None:
    """Say of each limit of files that is raised on a resume that the images differ from there on."""
    for name, (before, now) in raised_limits(changed).items():
        print(
            f"{name} was {before} and is now {now}: images between the two are read from here on", flush=True
        )


def _watching(recipe: Recipe, data: Spec, source: Source, method: Task, ranks: Ranks) -> list[Callback]:
    """What is measured of the method itself; says how often the encoder is looked at, and at what cost."""
    watching: list[Callback] = [FusionMonitor(), BiasMonitor(method.fusion.layers, method.encoder.depth)]
    looks = open_looks(recipe, data, source, method, ranks.world)
    if looks is not None:
        if ranks.main:
            print(looks, flush=True)
        if looks.every_steps is not None:
            watching.append(EncoderMonitor(looks, recipe))
    return watching


def _begin(method: Task, init: str | Path | Backbone, recipe: Recipe, ranks: Ranks) -> None:
    """Put what training starts from into the encoder, and into what follows it."""
    warning = None
    if isinstance(init, Backbone):
        resampled = adopt(method.encoder, init)
        told = "positions resampled to the new grid" if resampled else "all of its weights"
    else:
        loaded = start_from(method.encoder, init, recipe.encoder.init_channels)
        told, warning = str(loaded), _other_statistics(loaded, recipe)
    if isinstance(method, CMAE):
        method.restart_target()
    if isinstance(method, Supervised):
        method.restart_average()
    if (eps := recipe.encoder.norm_eps) is not None:
        told = f"{told}; layer norms with an epsilon of {eps:g}"
    if ranks.main:
        print(printable(f"starting from {_called(init)}: {told}"), flush=True)
        if warning:
            print(printable(warning), file=sys.stderr, flush=True)


def check_init(recipe: Recipe, init: object) -> None:
    """Raise where a recipe says how to take weights to start from, and there are none."""
    if init is None and recipe.encoder.init_channels is not None:
        raise LaminaError("encoder.init_channels is for weights that training starts from; give --init too")


def _with_epsilon(recipe: Recipe, own: EncoderOptions | None, init: str | Path | Backbone | None) -> Recipe:
    """The recipe with the epsilon of the layer norms of what training starts from, where it leaves it open; a
    run that goes on has its `own`."""
    options = recipe.encoder
    if own is not None:
        options = replace(options, norm_eps=own.norm_eps) if options.norm_eps is None else options
    elif init is not None:
        options = with_epsilon_of(options, init)
    return replace(recipe, encoder=options)


def _called(init: str | Path | Backbone | None) -> str | None:
    """How a run's recipe names what it started from."""
    if isinstance(init, Backbone):
        return "a backbone" if init.origin is None else init.origin.name
    return None if init is None else str(init)


def tell_notes(source: Source, ranks: Ranks) -> None:
    """Say what was found beside the images and is not used."""
    for note in source.notes if ranks.main else ():
        print(printable(f"data: {note}"), flush=True)


def _look(source: Source, recipe: Recipe) -> None:
    """Read an image, so that data that do not fit are found out before a run is made or replaced.

    As many are tried as make a training stop, and no fewer: what `lamina data check` passes goes through.
    """
    tried, reason = min(len(source), recipe.data.bad_files_limit(len(source)) + 1), ""
    for i in range(tried):
        try:
            source.read(i, recipe.data.decoding(recipe.encoder.in_chans))
        except Unreadable as error:
            reason = str(error)
        else:
            return
    raise LaminaError(f"none of the first {tried} images can be read ({reason}); see `lamina data check`")


def _measure(recipe: Recipe, source: Source) -> Recipe:
    """Replace mean and std "auto" by those of the images."""
    options = recipe.encoder
    if "auto" not in (options.mean, options.std):
        return recipe
    mean, std = channel_stats(source, options.in_chans, recipe.data, seed=recipe.train.seed)
    measured = replace(
        options,
        mean=mean if options.mean == "auto" else options.mean,
        std=std if options.std == "auto" else options.std,
    )
    return replace(recipe, encoder=measured)


def data_facts(data: Spec, source: Source) -> DataFacts:
    """What a resumed run must find again: paths as given (a list of paths by its length), and all names."""
    given = (
        printable(os.fspath(data)) if isinstance(data, str | os.PathLike) else f"a list of {len(data)} paths"
    )
    return DataFacts(given, len(source), names_sha256(source.name(i) for i in range(len(source))))


def _other_statistics(loaded: Loaded, recipe: Recipe) -> str | None:
    mean, std = recipe.encoder.mean, recipe.encoder.std
    assert isinstance(mean, tuple)
    assert isinstance(std, tuple)
    return loaded.other_statistics(mean, std)


def with_classes(recipe: Recipe, source: Source) -> Recipe:
    """For training on labels, their names; refuses images without."""
    if recipe.method != "supervised":
        return recipe
    if source.labels is None:
        why = f" ({source.no_labels})" if source.no_labels else ""
        raise LaminaError(
            f"{recipe.name} learns from labels, and these images have none{why}; give root/CLASS/..., or a "
            "sample"
        )
    check_labels(source.labels, len(source.class_names))
    return replace(recipe, labels=replace(recipe.labels, classes=tuple(source.class_names)))


def _loader(recipe: Recipe, source: Source, method: Task, ranks: Ranks) -> TrainLoader:
    inner = mim_of(method)
    # Masks by a teacher's scores are drawn where the teacher is.
    masking = None if inner is None or isinstance(inner.masking, ScoredMasking) else inner.masking
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


def _check_same(run: Run, recipe: Recipe, facts: DataFacts, init: str | None) -> list[str]:
    """A resumed run computes what it would have computed, or is refused; limits of
    files may be raised, and one that diverged may have another learning rate, clipping or precision. Returns
    the names of those."""
    own = run.recipe()
    other, idle = differences(own, recipe), set(unread(own)) & set(unread(recipe))
    changed = [k for k in other if k not in FREE_ON_RESUME and k not in idle]
    allowed = [*raised_limits(other), *remedies(run.path, recipe.train, changed)]
    changed = [k for k in changed if k not in allowed]
    if init is not None and init != run.init():
        changed.append("init")
    if changed:
        raise LaminaError(
            f"--resume goes on with the recipe in {run.recipe_file}, but these options differ: "
            f"{', '.join(changed)}; leave them out, or start a new run"
        )
    before = run.data()
    if (facts.images, facts.names_sha256) != (before.images, before.names_sha256):
        raise LaminaError(
            f"the run was started on {before.images} images, and the {facts.images} of now are not the same; "
            "restore them (also those that cannot be read: without them the order of all others is another), "
            f"or start a new run with --init {run.path}"
        )
    if facts.content and before.content and facts.content != before.content:
        raise LaminaError(
            f"the run in {run.path} was started on other images of the same names; restore them, replace it "
            "with --overwrite, or choose another --out"
        )
    return allowed
