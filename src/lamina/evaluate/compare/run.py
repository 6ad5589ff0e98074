"""Several models by a chosen set of protocols and several seeds: measured once, and told in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.encoder.options import EncoderOptions, network_options
from lamina.evaluate.compare.models import Column, as_file, check_models, columns_of
from lamina.evaluate.compare.options import CompareOptions, Protocol
from lamina.evaluate.compare.recipes import (
    Recipes,
    check_recipes,
    classifier_recipe,
    detecting_recipe,
    segmenting_recipe,
)
from lamina.evaluate.compare.settings import SETTINGS, check_settings, images_of, write_settings
from lamina.evaluate.detect.protocol import evaluate_detect
from lamina.evaluate.fewshot.options import FewOptions
from lamina.evaluate.fewshot.protocol import evaluate_fewshot
from lamina.evaluate.finetune.protocol import evaluate_trained
from lamina.evaluate.kept_scores import read_scores, write_scores
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.evaluate.robustness.options import RobustnessOptions
from lamina.evaluate.robustness.protocol import evaluate_robustness
from lamina.evaluate.run_options import Going
from lamina.evaluate.score import Score, Unfinished, of_probe
from lamina.evaluate.segment.protocol import evaluate_segment
from lamina.features.options import Computing, FeatureOptions
from lamina.runs.resumable_folder import opened_to_go_on
from lamina.runs.run import Run
from lamina.runs.same_settings import is_free
from lamina.train.state import NONFINITE_EXIT_CODE

FROZEN = ("knn", "linear")
"""Protocols that judge frozen features: `CompareOptions.features` and `pools` are theirs."""
UNSEEDED = ("knn",)
"""Protocols without any choice by chance: one seed of a model says it all."""


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
    ordered = sorted(options.protocols, key=lambda each: each == "robustness")  # it needs finetune's
    tasks = [
        _Task(protocol, column, data, out, options, seed, recipes)
        for protocol in ordered
        for column in columns
        for seed in _seeds(protocol, column, options)
    ]
    with opened_to_go_on(out, out / SETTINGS, "comparison"):
        images = images_of(data, options.protocols)
        settings = check_settings(out, _settings(data, options, recipes), images, say)
        left = {task.column.name for task in tasks if read_scores(task.place.with_suffix(".json")) is None}
        check_models(
            out,
            {as_file(column.name): column.specs for column in columns},
            {as_file(column.name): column.name not in left for column in columns},
            network_options(options.network, options.heads),
        )
        if old := [protocol for protocol in FROZEN if (out / "scores" / protocol).is_dir()]:
            say(f"left out: {' and '.join(old)} of an earlier version, which chose features for each model")
        write_settings(out, settings)
        return _measured(tasks, {column.name: [] for column in columns}, say)


def _measured(
    tasks: Sequence[_Task], found: dict[str, list[Score]], say: Callable[[str], None]
) -> dict[str, list[Score]]:
    """The scores of each model; those that are kept are not measured again."""
    finished = sum(read_scores(task.place.with_suffix(".json")) is not None for task in tasks)

    def kept() -> str:
        """What an interruption leaves."""
        out = tasks[0].out
        return f"{finished} of {len(tasks)} evaluations are kept in {out}: the same command goes on there"

    for task in tasks:
        scores = read_scores(task.place.with_suffix(".json"), say)
        if scores is None:
            say(f"{task.protocol}, {task.column.name}, seed {task.seed}")
            with noted_on_interrupt(kept, (Unfinished,)):
                scores = _measure(task)
            for score in scores:
                say(f"  {score.protocol}: {score.metric} {100 * score.value:.1f} %")
            write_scores(task.place.with_suffix(".json"), scores)
            finished += 1
        found[task.column.name] += scores
    return found


def _measure(task: _Task) -> tuple[Score, ...]:
    try:
        return task.measure()
    except LaminaError as error:
        if error.exit_code != NONFINITE_EXIT_CODE:
            raise
        way = f"give --config with '{task.protocol}: {{optim: {{base_lr: ...}}}}' and another --out"
        told = f"{task.protocol} of {task.column.name} diverged: {way}"
        raise Unfinished(told, error.exit_code) from error


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
    def tunes_first(self) -> bool:
        """Whether it is the robustness of what fine-tuning leaves: another number than that of others."""
        return self.protocol == "robustness" and "finetune" in self.options.protocols

    @property
    def place(self) -> Path:
        """Of its scores, without ending."""
        protocol: str = "robustness-finetune" if self.tunes_first else self.protocol
        if protocol in FROZEN:
            protocol += f"-{','.join(self.options.features)}-{','.join(self.options.pools)}"
        return self.out / "scores" / protocol / f"{as_file(self.column.name)}-seed{self.seed}"

    def measure(self) -> tuple[Score, ...]:
        """The scores of a protocol, with the column's seed and the time that they took, probing included."""
        started = time.perf_counter()
        scores = self._measured()
        each = round((time.perf_counter() - started) / len(scores), 1)
        return tuple(replace(score, seed=self.seed, seconds=max(score.seconds, each)) for score in scores)

    def _measured(self) -> tuple[Score, ...]:
        """Each protocol is one branch here and a function of its own elsewhere."""
        protocol, spec, options = self.protocol, self.column.of(self.seed), self.options
        if protocol == "knn":
            return of_probe(evaluate_knn(spec, self.data, **self._reading()))
        if protocol == "linear":
            return of_probe(evaluate_linear(spec, self.data, seed=self.seed, **self._reading()))
        if protocol == "fewshot":
            few = FewOptions(per_class=options.few_per_class)
            return evaluate_fewshot(
                spec, self.data, few, self._going(protocol), encoder=self.network, computing=self._computing()
            )
        if protocol == "robustness":
            return (self._robustness(spec),)
        going = self._going(protocol)
        if protocol == "segment":
            chosen = segmenting_recipe(self.recipes)
            return (evaluate_segment(spec, self.data, going, recipe=chosen, encoder=self.network),)
        if protocol == "detect":
            found = detecting_recipe(self.recipes)
            return (evaluate_detect(spec, self.data, going, recipe=found, encoder=self.network),)
        recipe = classifier_recipe(protocol, spec, self.recipes, options.epochs, self.network)
        return (evaluate_trained(protocol, spec, self.data, going, recipe=recipe, encoder=self.network),)

    def _robustness(self, spec: str) -> Score:
        """Of the classifier that finetune trained here; without finetune of the model as it is, or of a
        probe."""
        going = self._going(self.place.parent.name)
        asked = RobustnessOptions(images=self.options.corrupted_images)
        if not self.tunes_first:
            known, computing = self.network, self._computing()
            return evaluate_robustness(spec, self.data, asked, going, computing=computing, encoder=known)
        tuned = self._folder("finetune")
        if not Run(tuned).exists():
            raise LaminaError(f"{tuned} is gone, whose classifier was to be tested; choose another --out")
        score = evaluate_robustness(tuned, self.data, asked, going, computing=self._computing())
        return replace(score, protocol="robustness-finetune")

    @property
    def network(self) -> EncoderOptions | None:
        """What `load_encoder` takes for weights files that do not say their network."""
        return network_options(self.options.network, self.options.heads)

    def _folder(self, protocol: str) -> Path:
        return self.out / "trainings" / protocol / f"{as_file(self.column.name)}-seed{self.seed}"

    def _going(self, protocol: str) -> Going:
        folder = self._folder(protocol)
        return Going(folder, True, False, self.seed, self.options.device, self.options.workers)

    def _computing(self) -> Computing:
        options = self.options
        return Computing(options.batch_size, options.workers, options.device, cache=self.out / "cache")

    def _reading(self) -> dict[str, Any]:
        options = self.options
        return {
            "features": FeatureOptions(features=options.features, pools=options.pools),
            "encoder": self.network,
            "batch_size": options.batch_size,
            "workers": options.workers,
            "device": options.device,
            "cache": self.out / "cache",
        }


def _seeds(protocol: Protocol, column: Column, options: CompareOptions) -> range:
    """A model of several runs has a seed for each; one run has as many as are asked for, where they
    differ."""
    if len(column.specs) > 1:
        return range(len(column.specs))
    return range(1 if protocol in UNSEEDED else options.seeds)


def _settings(data: str, options: CompareOptions, recipes: Recipes) -> dict[str, Any]:
    """What all scores of a folder have in common, beside the images."""
    kept = {n: value for n, value in asdict(options).items() if not is_free(n) and n not in FREE}
    return {"data": data, **kept, "recipes": dict(recipes)}
