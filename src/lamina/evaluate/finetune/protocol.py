"""The protocols that train on labels: MAE's linear probe, the attentive probe and fine-tuning, then one
test."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

from lamina.core.config import describe_changes, flatten, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.data.digest import joined_digests
from lamina.data.sources import Source, images_digest
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.finetune.adapt import adapt_recipe, classifier_recipe, protocol_recipe
from lamina.evaluate.finetune.recipes import FinetuneRecipe, recipe_of
from lamina.evaluate.predictions import Predictions, classify
from lamina.evaluate.protocol import ProtocolOptions, RunOptions, Trained, TrainingRecipe
from lamina.evaluate.result_files import file_name
from lamina.evaluate.score import Score, Unfinished, named, score_file
from lamina.features.data import LabelledData, open_labelled
from lamina.features.options import ComputeOptions
from lamina.features.table import Setting
from lamina.interop.backbone import Backbone
from lamina.interop.load import as_backbone
from lamina.pretraining import MoreCallbacks, run_pretrain
from lamina.recipes.recipe import Recipe
from lamina.runs.model_spec import locate_step
from lamina.runs.run import Run, load_task
from lamina.runs.same_settings import free_names
from lamina.supervised.classifier import Supervised
from lamina.train.distributed import choose_device

R = TypeVar("R", bound=TrainingRecipe)


def evaluate_trained(
    protocol: Trained,
    model: str | Path | Backbone,
    data: str | Path | LabelledData,
    run_options: RunOptions | None = None,
    *,
    recipe: FinetuneRecipe | None = None,
    encoder: str | EncoderOptions | None = None,
    train: Source | None = None,
    called: str | None = None,
    callbacks: MoreCallbacks | None = None,
) -> Score:
    """Train by the protocol on the training images, then classify the test images once.

    The score is that of the last step: nothing is chosen on the test images (MAE's code reports the best
    epoch).

    Args:
        protocol: "linear-mae", "attentive" or "finetune".
        model: whatever `load_encoder` takes, or a backbone.
        data: labelled images in two parts.
        run_options: folder, seed, device.
        recipe: what is trained by; by default the published one for networks of that size.
        encoder: timm name or options of the network, for weights files that do not say.
        train: training images in place of those of `data` (few labels).
        called: their name in the score's protocol and folder.
        callbacks: more of them, see `run_pretrain`.

    Raises:
        Unfinished: where the training was interrupted; it goes on with `resume`.
        LaminaError: one line on what is wrong with the model, the data or the folder.
    """
    run_options, started = run_options or RunOptions(), time.perf_counter()
    labelled = open_labelled(data)
    backbone = as_backbone(model, encoder)
    source = labelled.train if train is None else train
    chosen, notes = adapt_recipe(recipe or protocol_recipe(protocol, backbone), backbone, source)
    chosen, said = placed(chosen, run_options), (*labelled.notes, *labelled.trained_on(backbone), *notes)
    name = protocol if called is None else f"{protocol}-{called}"
    out = folder_of(run_options, backbone, model, name, labelled.name)
    learned = images_digest(source)
    outcome = run_pretrain(
        chosen,
        labelled.name,
        out,
        resume=run_options.resume,
        overwrite=run_options.overwrite,
        init=backbone,
        callbacks=callbacks,
        source=source,
        content=learned,
    )
    if outcome.exit_code:
        raise Unfinished(outcome.sentence, outcome.exit_code)
    compute = ComputeOptions(workers=chosen.data.workers, device=chosen.train.device)
    answers = test_run(out, labelled.test, compute)
    score = Score(
        protocol=name,
        **named(backbone),
        data=labelled.name,
        metric="top1",
        value=answers.top1,
        interval=answers.interval,
        n_train=len(source),
        n_test=len(answers.labels),
        seed=run_options.seed,
        settings={**_settings(chosen), "folder": str(out)},
        notes=(*said, *answers.notes, *answers.confusion.majority_note()),
        seconds=round(time.perf_counter() - started, 1),
        more=answers.confusion.numbers,
        confusion=answers.confusion,
        variant=_variant(chosen, protocol, backbone, source),
        images=joined_digests(learned, images_digest(labelled.test)),
    )
    keep(score, model)
    return score


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_trained` as a row of `lamina.evaluate.catalog`."""
    protocol, encoder = cast("Trained", options.protocol), options.encoder
    recipe = classifier_recipe(protocol, model, options.recipe, options.epochs, encoder)
    return (evaluate_trained(protocol, model, data, run_options, recipe=recipe, encoder=encoder),)


def test_run(run: Path, test: Source, compute: ComputeOptions) -> Predictions:
    """What the classifier that a run trained says of test images."""
    task, recipe = load_task(run)
    if not isinstance(task, Supervised):
        raise LaminaError(f"{run} was not trained on labels, so it has no classifier; fine-tune it first")
    if test.class_names and tuple(test.class_names) != recipe.labels.classes:
        raise LaminaError(f"the classes of the test images are not those that {run} was trained on")
    task = task.to(choose_device(compute.device))
    encoder = task.encoder
    return classify(task.logits, test, encoder.image_size, encoder.in_chans, recipe.data, compute)


def keep(score: Score, model: str | Path | Backbone) -> Path | None:
    """Write the score of a run into its results; what cannot be written is said by an error of the system."""
    if isinstance(model, Backbone):
        return None
    file = score_file(score, newest=Run(model).exists())
    if file is not None:
        check_writable(file)
        score.save(file)
    return file


def placed(recipe: R, run_options: RunOptions) -> R:
    """A protocol's recipe with the seed, the device and the workers that were asked for."""
    train = replace(recipe.train, seed=run_options.seed, device=run_options.device or recipe.train.device)
    workers = recipe.data.workers if run_options.workers is None else run_options.workers
    return replace(recipe, train=train, data=replace(recipe.data, workers=workers))


def folder_of(
    run_options: RunOptions, backbone: Backbone, model: str | Path | Backbone, protocol: str, data: str
) -> Path:
    """The folder that was given, else one in the run that the model is; raises where it is no run."""
    if run_options.out is not None:
        return run_options.out
    name = f"{protocol}-{file_name(data)}-seed{run_options.seed}"
    if not isinstance(model, Backbone) and backbone.origin is not None and Run(backbone.origin.name).exists():
        place, step = locate_step(model)
        newest = Run(str(model)).exists()
        return Run(place).evaluations / (name if newest else f"{name}@{step}")
    raise LaminaError("where to? give --out FOLDER (a run has its own, RUN/evaluations)")


def length_of(recipe: Recipe) -> str:
    """Of its training, for people: steps where they are what counts, else epochs."""
    steps = recipe.train.max_steps
    return f"{recipe.train.epochs:g} epochs" if steps is None else f"{steps} steps"


def _variant(chosen: Recipe, protocol: str, backbone: Backbone, source: Source) -> str:
    """The recipe's name, its length, and the fields that differ from the recipe of that name."""
    told = f"{chosen.name}, {length_of(chosen)}"
    said = (*free_names(chosen), "train.seed", "train.epochs", "train.max_steps")
    try:
        named, _ = adapt_recipe(recipe_of(protocol, chosen.name), backbone, source)
    except LaminaError:  # a recipe that was made in Python
        return f"{told}, {digest_of(chosen, said)}"
    warm_up = named.optim.warmup_epochs * chosen.train.epochs / named.train.epochs  # as --epochs has it
    named = replace(named, optim=replace(named.optim, warmup_epochs=warm_up))
    changes = describe_changes(named, chosen, said)
    return f"{told}, {changes}" if changes else told


def digest_of(options: Any, but: Sequence[str]) -> str:
    """The first 12 digits of a SHA-256 of all fields but those."""
    fields = {name: value for name, value in flatten(to_mapping(options)).items() if name not in but}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]


def _settings(recipe: Recipe) -> dict[str, Setting]:
    """What a reader of the score wants to know of the training."""
    peak = recipe.optim.base_lr * recipe.train.batch_size / 256
    told: dict[str, Setting] = {
        "recipe": recipe.name,
        "epochs": recipe.train.epochs,
        "batch": recipe.train.batch_size,
        "lr": peak,
        "pool": recipe.supervised.pool or "cls",
    }
    if recipe.train.max_steps is not None:
        told["steps"] = recipe.train.max_steps
    if recipe.optim.layer_decay is not None:
        told["layer_decay"] = recipe.optim.layer_decay
    return told
