"""The verbs `lamina evaluate NAME` of protocols that train, need few labels, or test robustness."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import tyro
from rich.table import Table

from lamina.api import report_callbacks
from lamina.cli.evaluate import refresh_report
from lamina.cli.parse import read_config
from lamina.cli.parse_protocol import A, ProtocolArguments
from lamina.cli.pretrain import describe
from lamina.core.console import make_console
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.core.ranges import COUNT
from lamina.data.open import open_source
from lamina.encoder.options import network_options
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.compare.recipes import check_recipes, classifier_recipe
from lamina.evaluate.compare.run import compare
from lamina.evaluate.compare.table import Comparison
from lamina.evaluate.fewshot.options import FewOptions
from lamina.evaluate.fewshot.protocol import evaluate_fewshot
from lamina.evaluate.finetune.adapt import adapt_recipe
from lamina.evaluate.finetune.protocol import evaluate_trained
from lamina.evaluate.robustness.options import RobustnessOptions
from lamina.evaluate.robustness.protocol import evaluate_robustness
from lamina.evaluate.run_options import Going, Trained
from lamina.evaluate.score import Score
from lamina.features.options import Computing
from lamina.interop.load import load_encoder
from lamina.report.compare_page import write_comparison
from lamina.train.distributed import is_main

T = TypeVar("T")
Model = Annotated[str, tyro.conf.arg(metavar="MODEL")]
Data = Annotated[str, tyro.conf.arg(metavar="DATA")]
Heads = Annotated[int | None, tyro.conf.arg(name="encoder.heads"), COUNT]
Flat = Annotated[T, tyro.conf.arg(name="")]
GOING, FEW, ROBUSTNESS, COMPARE = Going(), FewOptions(), RobustnessOptions(), CompareOptions()

console = make_console(soft_wrap=True, width=None if sys.stdout.isatty() else 140)


def evaluate_by_training(protocol: Trained, arguments: ProtocolArguments) -> int:
    """Train by a protocol and test once; with --dry-run say what would be done."""
    evaluate = partial(evaluate_trained, protocol, callbacks=report_callbacks)
    return run_training(arguments, _describe, evaluate)


def run_training(
    arguments: A, describe: Callable[[A], None], evaluate: Callable[..., Score], say_folder: bool = False
) -> int:
    """Train and test, and tell the score, or with --dry-run say what would be done; returns the exit code.

    Args:
        evaluate: model, data and `Going` to a score, by `recipe` and `encoder`.
        say_folder: whether the folder is told too.
    """
    if arguments.dry_run:
        describe(arguments)
        return 0
    if arguments.json is not None:
        check_writable(arguments.json)
    score = evaluate(
        arguments.model,
        arguments.data,
        arguments.going,
        recipe=arguments.fields,
        encoder=arguments.options,
    )
    if is_main():
        tell((score,), arguments.json)
        if say_folder:
            _say(f"folder {score.settings['folder']}")
    return 0


def _describe(arguments: ProtocolArguments) -> None:
    """The resolved recipe, the steps and the memory of a training that is not started."""
    backbone = load_encoder(arguments.model, encoder=arguments.options)
    chosen, notes = adapt_recipe(arguments.fields, backbone, open_source(arguments.data, "train"))
    describe(chosen, arguments.data, "train")
    for note in notes:
        _say(note)


def fewshot(
    model: Model,
    data: Data,
    /,
    json: Path | None = None,
    network: str | None = None,
    heads: Heads = None,
    recipe: str | None = None,
    config: Path | None = None,
    epochs: float | None = None,
    few: Flat[FewOptions] = FEW,
    going: Flat[Going] = GOING,
) -> int:
    """Few labels: n images of each class, or shares of all; several draws, their mean and interval.

    Args:
        model: A run, a step of a run (runs/mff@100), a timm name, a weights file; untrained:MODEL.
        data: Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample.
        json: Also write the score to this file, of one amount alone.
        network: timm name of the network, for a weights file that does not say.
        heads: Attention heads of the network, for a weights file of an unusual width, which does not say.
        recipe: Of fine-tuning, by default the published one for the network's size.
        config: YAML file with fields of that recipe.
        epochs: Of fine-tuning, in place of the recipe's; warm-up keeps its share.
        few: Amounts, draws, and what learns.
        going: Seed, device; for finetune the folder of its trainings.
    """
    if json is not None:
        check_writable(json)
    asked = {**({} if config is None else read_config(config)), **({"recipe": recipe} if recipe else {})}
    if few.by != "finetune" and (asked or epochs is not None):
        raise LaminaError(f"recipe, config and epochs are of fine-tuning, not of {few.by}; add --by finetune")
    recipes = {"finetune": asked} if asked else {}
    check_recipes(recipes)
    known = network_options(network, heads)
    chosen = classifier_recipe("finetune", model, recipes, epochs, known)
    scores = evaluate_fewshot(model, data, few, going, encoder=known, recipe=chosen, say=_say)
    tell(scores, json)
    return 0


def robustness(
    model: Model,
    data: Data,
    /,
    json: Path | None = None,
    network: str | None = None,
    heads: Heads = None,
    batch_size: int = 64,
    options: Flat[RobustnessOptions] = ROBUSTNESS,
    going: Flat[Going] = GOING,
) -> int:
    """A classifier on corrupted images, or on ImageNet-C, -A, -R, -Sketch as published.

    What was measured is kept in the folder and not measured again.

    Args:
        model: A run on labels (fine-tuned), an exported classifier; of an encoder a linear probe.
        data: Labelled images in two parts, or the folder of a published set.
        json: Also write the score to this file.
        network: timm name of the network, for a weights file that does not say.
        heads: Attention heads of the network, for a weights file of an unusual width, which does not say.
        batch_size: Images per forward.
        options: Which images.
        going: Folder, seed, device.
    """
    if json is not None:
        check_writable(json)
    computing = Computing(batch_size, 2 if going.workers is None else going.workers, going.device or "auto")
    known = network_options(network, heads)
    score = evaluate_robustness(model, data, options, going, computing=computing, encoder=known, say=_say)
    tell((score,), json)
    return 0


def compare_all(
    models_and_data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL ... DATA")],
    /,
    out: Path,
    config: Path | None = None,
    options: Flat[CompareOptions] = COMPARE,
) -> int:
    """Several models by a set of protocols and seeds: one table, resumable, features cached.

    A model is MODEL, or NAME=MODEL, or NAME=RUN,RUN,RUN for runs of several seeds: each is then a seed.

    Args:
        models_and_data: Runs, steps of runs, timm names, weights files, untrained:MODEL for a twin before
        training;
            the last one is the data: labelled images, root/CLASS/..., root/{train,val}/CLASS/..., or a
            sample.
        out: Folder of the comparison; called again, it goes on where it was.
        config: YAML file with recipes by protocol: what differs, over the published one or over the one
            that `recipe` names, such as 'finetune: {recipe: finetune-s, train: {epochs: 20}}'.
        options: Protocols, seeds, sizes.
    """
    if len(models_and_data) < 2:
        raise LaminaError(
            "give one model or more, and then the data: lamina evaluate all MODEL ... DATA --out F"
        )
    *models, data = models_and_data
    recipes = {} if config is None else read_config(config)
    scores = compare(models, data, out, options, _say, recipes)
    files = write_comparison(scores, data, out, shlex.join(["lamina", *sys.argv[1:]]))
    for model in sorted({score.model for each in scores.values() for score in each}):
        refresh_report(model)
    comparison = Comparison.of(scores)
    header, lines = comparison.table()
    table = Table(*header, box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for line in lines:
        table.add_row(*(cell.replace("**", "") for cell in line))
    console.print(table)
    for sentence in (*comparison.gains(), *map(str, files)):
        _say(sentence)
    return 0


def tell(scores: tuple[Score, ...], file: Path | None) -> None:
    """Scores as a table; a run's report is written anew with them."""
    if file is not None and scores:
        scores[-1].save(file)
    table = Table(
        "protocol", "metric", "value", "95 % interval", "train", "test", box=None, padding=(0, 3, 0, 0)
    )
    for score in scores:
        interval = (
            "" if score.interval is None else "{:.1f} to {:.1f}".format(*(100 * x for x in score.interval))
        )
        shown = (f"{100 * score.value:.1f} %", interval, str(score.n_train), str(score.n_test))
        table.add_row(score.protocol, score.metric, *shown)
    console.print(table)
    for score in scores:
        for name, value in score.more.items():
            if not name.startswith("draw "):
                console.print(f"{name}: {100 * value:.1f} %", markup=False)
        for note in score.notes:
            console.print(note, markup=False)
    refresh_report(scores[0].model)


def _say(line: str) -> None:
    console.print(line, markup=False)
