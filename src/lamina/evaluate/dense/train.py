"""A training of a protocol with a task of its own: its folder, its settings on disk, and how it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from lamina.callbacks.bad_files import FaultMonitor
from lamina.core.config import current_names, flatten
from lamina.core.errors import LaminaError
from lamina.core.files import replace_text
from lamina.core.records import parse_yaml, read_yaml, to_yaml, write_json
from lamina.data.loading.bad_files import FaultBudget
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.score import Unfinished
from lamina.runs.resumable_folder import (
    FolderOnMain,
    ResumableFolder,
    Started,
    begin_on_main,
    opened_on_main,
)
from lamina.runs.run import environment
from lamina.runs.same_settings import changes_on_resume, print_raised_limits
from lamina.train.callbacks import Callback
from lamina.train.distributed import Ranks, choose_device, from_main, on_main, process_group
from lamina.train.loop import Loader, fit
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions
from lamina.train.precision import has_tf32

SETTINGS = "evaluation.yaml"
LATER = ("images",)
"""Settings that trainings of earlier versions do not say."""
TF32 = "recipe.train.tf32"
"""Another one: they computed in full fp32."""


class BudgetedLoader(Loader, Protocol):
    """A loader that counts the files it could not read."""

    @property
    def budget(self) -> FaultBudget: ...


def fit_protocol(
    task: nn.Module,
    loader: BudgetedLoader,
    optim: OptimOptions,
    options: TrainOptions,
    folder: Path,
    settings: dict[str, Any],
    run_options: RunOptions,
    callbacks: Sequence[Callback] = (),
    kind: type | None = None,
) -> None:
    """Train the task in place, in `folder`: settings, metrics.jsonl, train.log, checkpoints; call it on every
    rank. A training that is finished is only read back.

    Args:
        task, loader, optim, options, callbacks: as `fit`.
        settings: all that the numbers depend on, in plain numbers and text; written down, and the same on a
            resume but for what `lamina.runs.same_settings.is_free` names.
        run_options: whether to go on with the folder, or to replace it.
        kind: as `begin_evaluation`.

    Raises:
        Unfinished: where the training was interrupted or stopped.
        LaminaError: where the folder has something else in it, or as `fit`.
    """
    with (
        process_group(options.device) as ranks,
        opened_evaluation(ranks, folder, run_options) as opened,
    ):
        begin_evaluation(ranks, opened, folder, settings, run_options, options, kind)
        loader.budget.content_counts = "images" in settings
        outcome = fit(
            task,
            loader,
            optim,
            options,
            folder,
            [*([Started(opened)] if opened else []), FaultMonitor(loader.budget), *callbacks],
            resume=run_options.resume,
        )
    if outcome.exit_code:
        raise Unfinished(outcome.sentence, outcome.exit_code)


def opened_evaluation(ranks: Ranks, folder: Path, run_options: RunOptions) -> FolderOnMain:
    """The folder of an evaluation for the one process that writes into it."""
    return opened_on_main(
        ranks,
        folder,
        (folder / SETTINGS).is_file,
        "evaluation",
        resume=run_options.resume,
        overwrite=run_options.overwrite,
    )


def begin_evaluation(
    ranks: Ranks,
    opened: ResumableFolder | None,
    folder: Path,
    settings: dict[str, Any],
    run_options: RunOptions,
    options: TrainOptions | None = None,
    kind: type | None = None,
) -> None:
    """Write the settings, or see that they are the same; `options` are those of the training, where there is
    one: one that diverged may go on with another rate, clipping or precision. `kind` is the type of the
    recipe in the settings: files of earlier versions have the former names of its fields."""
    file = folder / SETTINGS
    text = to_yaml(settings)

    def write() -> None:
        replace_text(file, text)
        write_json(folder / "environment.json", environment())

    def go_on() -> None:
        if _other_settings(file, text, options, kind):
            replace_text(file, text)

    if from_main(int(run_options.resume and file.is_file()), ranks):
        on_main(ranks, go_on)
    else:
        begin_on_main(ranks, opened, write)


def _other_settings(file: Path, text: str, options: TrainOptions | None, kind: type | None = None) -> bool:
    """Whether those in the file differ, in limits of files that are raised, or in what a training that
    diverged may change; others are refused."""
    before, now = flatten(_mapping(file, kind)), flatten(parse_yaml(text))
    # The file of an older training may also hold fields that other options switch off.
    before = {name: value for name, value in before.items() if name in now}
    unread = [name for name in LATER if name not in before]
    if TF32 not in before:
        before[TF32] = False
        if options is None or not has_tf32(choose_device(options.device), options):
            unread.append(TF32)
    changed = changes_on_resume(before, now, file, options, unread)
    print_raised_limits(changed)
    return bool(changed)


def _mapping(file: Path, kind: type | None) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise LaminaError(f"{file} holds no settings; start anew with --overwrite")
    if isinstance(network := content.get("network"), dict):
        content["network"] = current_names(network, EncoderOptions)
    if kind is not None and isinstance(recipe := content.get("recipe"), dict):
        content["recipe"] = current_names(recipe, kind)
    return content
