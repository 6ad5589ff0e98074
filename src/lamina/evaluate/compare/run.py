"""Several models by a chosen set of protocols and several seeds: measured once, and compared in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.core.records import write_json
from lamina.encoder.options import network_options
from lamina.evaluate.catalog import PROTOCOLS, protocol_named
from lamina.evaluate.compare.models import Column, as_file, check_models, columns_of
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.compare.recipes import Recipes, check_recipes
from lamina.evaluate.compare.settings import SETTINGS, check_settings, images_of
from lamina.evaluate.protocol import Protocol, RunOptions, imported
from lamina.evaluate.result_files import read_scores, write_scores
from lamina.evaluate.score import Score, Unfinished
from lamina.features.options import ComputeOptions
from lamina.runs.resumable_folder import opened_to_go_on
from lamina.runs.run import Run
from lamina.runs.same_settings import is_free
from lamina.train.state import NONFINITE_EXIT_CODE

FREE = ("batch_size", "seeds", "protocols", "features", "pools")
"""Options that a comparison may change when it goes on, beside those that every resume may change."""


def compare(
    models: Sequence[str],
    data: str,
    out: Path,
    options: CompareOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
    recipes: Recipes = MappingProxyType({}),
) -> dict[str, list[Score]]:
    """Measure what is still missing in `out`; the scores of each model, for `Comparison.of`.

    Killed at any time, it goes on when called again: scores are kept one by one, trainings resume from their
    checkpoints, features of frozen encoders are cached. More protocols, models and seeds may follow later.

    Args:
        models: see `columns_of`.
        data: labelled images, with dense labels for segment and detect.
        out: folder; `scores/`, `trainings/`, `cache/`.
        options: protocols, seeds, sizes.
        say: told a line for each protocol, model and seed.
        recipes: what differs from the published ones, as in `{"finetune": {"train": {"epochs": 20}}}`.

    Raises:
        Unfinished: where a training was interrupted.
        LaminaError: as the protocols, and where `out` holds a comparison of other data or options, or a name
            stands for another network than before.
    """
    options, columns = options or CompareOptions(), columns_of(models)
    check_recipes(recipes)
    chosen = [protocol_named(name) for name in options.protocols]
    ordered = sorted(chosen, key=lambda protocol: bool(protocol.after))  # it needs what another one trains
    tasks = [
        _Task(protocol, column, data, out, options, seed, recipes)
        for protocol in ordered
        for column in columns
        for seed in _seeds(protocol, column, options)
    ]
    with opened_to_go_on(out, out / SETTINGS, "comparison"):
        images = images_of(data, chosen)
        settings = check_settings(out, _settings(data, options, recipes), images, say)
        left = {task.column.name for task in tasks if read_scores(task.file) is None}
        check_models(
            out,
            {as_file(column.name): column.specs for column in columns},
            {as_file(column.name): column.name not in left for column in columns},
            network_options(options.network, options.heads),
        )
        if old := [p.name for p in PROTOCOLS if p.on_features and (out / "scores" / p.name).is_dir()]:
            say(f"left out: {' and '.join(old)} of an earlier version, which chose features for each model")
        idle = [f"--{name.replace('_', '-')}" for name in options.without_effect(chosen)]
        idle += [f"the recipe of {name}" for name in recipes if name not in options.protocols]
        for each in idle:
            say(f"{each} has no effect on {', '.join(options.protocols)}")
        write_json(out / SETTINGS, settings)
        return _measured(tasks, {column.name: [] for column in columns}, say)


def _measured(
    tasks: Sequence[_Task], found: dict[str, list[Score]], say: Callable[[str], None]
) -> dict[str, list[Score]]:
    """The scores of each model; those on disk are not measured again."""
    finished = sum(read_scores(task.file) is not None for task in tasks)

    def progress_note() -> str:
        """A sentence on what an interruption leaves."""
        out = tasks[0].out
        return f"{finished} of {len(tasks)} evaluations are kept in {out}: the same command goes on there"

    for task in tasks:
        scores = read_scores(task.file, say)
        if scores is None:
            say(f"{task.protocol.name}, {task.column.name}, seed {task.seed}")
            with noted_on_interrupt(progress_note, (Unfinished,)):
                scores = _measure(task)
            for score in scores:
                say(f"  {score.protocol}: {score.metric} {100 * score.value:.1f} %")
            write_scores(task.file, scores)
            finished += 1
        found[task.column.name] += scores
    return found


def _measure(task: _Task) -> tuple[Score, ...]:
    try:
        return task.measure()
    except LaminaError as error:
        if error.exit_code != NONFINITE_EXIT_CODE:
            raise
        raise Unfinished(
            f"{task.protocol.name} of {task.column.name} diverged: give --config with "
            f"'{task.protocol.name}: {{optim: {{base_lr: ...}}}}' and another --out",
            error.exit_code,
        ) from error


@dataclass(frozen=True)
class _Task:
    """One protocol, one model, one seed."""

    protocol: Protocol
    column: Column
    data: str
    out: Path
    options: CompareOptions
    seed: int
    recipes: Recipes

    @property
    def name(self) -> str:
        """The protocol's name, with that of the protocol whose classifier it tests."""
        after = self.protocol.after
        return f"{self.protocol.name}-{after}" if after in self.options.protocols else self.protocol.name

    @property
    def file(self) -> Path:
        """The file of its scores."""
        read = f"-{','.join(self.options.features)}-{','.join(self.options.pools)}"
        folder = self.out / "scores" / (self.name + (read if self.protocol.on_features else ""))
        return folder / f"{as_file(self.column.name)}-seed{self.seed}.json"

    def measure(self) -> tuple[Score, ...]:
        """The scores of a protocol, with the column's seed and the time that they took, probing included."""
        started = time.perf_counter()
        scores = self._measured()
        each = round((time.perf_counter() - started) / len(scores), 1)
        return tuple(replace(score, seed=self.seed, seconds=max(score.seconds, each)) for score in scores)

    def _measured(self) -> tuple[Score, ...]:
        options, protocol, model = self.options, self.protocol, self.column.spec_of(self.seed)
        wanted = options.of(protocol, self.recipes.get(protocol.name, {}))
        run_options = RunOptions(
            self._folder(self.name), True, False, self.seed, options.device, options.workers
        )
        compute = ComputeOptions(
            options.batch_size, options.workers, options.device, cache=self.out / "cache"
        )
        run = imported(protocol.run)
        if self.name == protocol.name:
            return run(model, self.data, wanted, run_options, compute)  # type: ignore[no-any-return]
        trained = self._folder(protocol.after)
        if not Run(trained).exists():
            raise LaminaError(f"{trained} is gone, whose classifier was to be tested; choose another --out")
        scores = run(trained, self.data, replace(wanted, encoder=None), run_options, compute)
        return tuple(replace(score, protocol=self.name) for score in scores)

    def _folder(self, protocol: str) -> Path:
        return self.out / "trainings" / protocol / f"{as_file(self.column.name)}-seed{self.seed}"


def _seeds(protocol: Protocol, column: Column, options: CompareOptions) -> range:
    """A model of several runs has a seed for each; one run has as many as are asked for, where they
    differ."""
    if len(column.specs) > 1:
        return range(len(column.specs))
    return range(options.seeds if protocol.seeded else 1)


def _settings(data: str, options: CompareOptions, recipes: Recipes) -> dict[str, Any]:
    """The settings that all scores of a folder share, without the images."""
    fixed = {n: value for n, value in asdict(options).items() if not is_free(n) and n not in FREE}
    return {"data": data, **fixed, "recipes": dict(recipes)}
