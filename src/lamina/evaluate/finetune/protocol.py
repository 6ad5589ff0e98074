"""The protocols that train on labels: MAE's linear probe, the attentive probe and fine-tuning, then one
test."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import cast

from lamina.core.errors import LaminaError
from lamina.data.digest import joined_digests
from lamina.data.sources import Source, images_digest
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.finetune.adapt import adapt_recipe, classifier_recipe, protocol_recipe
from lamina.evaluate.finetune.recipes import FinetuneRecipe, recipe_of
from lamina.evaluate.load_classifier import open_classifier
from lamina.evaluate.protocol import ProtocolOptions, RunOptions, Trained
from lamina.evaluate.result_files import evaluation_folder, save_in_run
from lamina.evaluate.score import Score, Unfinished, model_and_step
from lamina.evaluate.variants import variant_of
from lamina.features.data import LabelledData, open_labelled
from lamina.features.options import ComputeOptions
from lamina.features.table import Setting
from lamina.interop.backbone import Backbone
from lamina.interop.load import as_backbone
from lamina.pretraining import MoreCallbacks, run_pretrain
from lamina.recipes.recipe import Recipe


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
    labelled = open_labelled(data, several=True)
    backbone = as_backbone(model, encoder)
    source = labelled.train if train is None else train
    recipe = recipe or protocol_recipe(protocol, backbone)
    training, notes = adapt_recipe(recipe, backbone, source)
    training = run_options.applied_to(training)
    name = protocol if called is None else f"{protocol}-{called}"
    out = evaluation_folder(run_options, backbone, model, name, labelled.name)
    train_digest = images_digest(source)
    outcome = run_pretrain(
        training,
        labelled.name,
        out,
        resume=run_options.resume,
        overwrite=run_options.overwrite,
        init=backbone,
        callbacks=callbacks,
        source=source,
        content=train_digest,
    )
    if outcome.exit_code:
        raise Unfinished(outcome.sentence, outcome.exit_code)
    compute = ComputeOptions(workers=training.data.workers, device=training.train.device)
    found = open_classifier(out, compute=compute).answers(labelled.test, compute)
    score = Score(
        protocol=name,
        **model_and_step(backbone),
        data=labelled.name,
        **found.score_fields,
        n_train=len(source),
        seed=run_options.seed,
        settings={**_settings(training), "folder": str(out)},
        notes=(*labelled.notes_for(backbone), *notes, *found.notes),
        seconds=round(time.perf_counter() - started, 1),
        variant=_variant(training, protocol, backbone, source),
        images=joined_digests(train_digest, images_digest(labelled.test)),
    )
    save_in_run(score, model)
    return score


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_trained` as a row of `lamina.evaluate.catalog`."""
    protocol, encoder = cast("Trained", options.protocol), options.encoder
    recipe = classifier_recipe(protocol, model, options.recipe, options.epochs, encoder)
    return (evaluate_trained(protocol, model, data, run_options, recipe=recipe, encoder=encoder),)


def _variant(training: Recipe, protocol: str, backbone: Backbone, source: Source) -> str:
    """The recipe's name, its length, and the fields that differ from the recipe of that name."""
    steps, epochs = training.train.max_steps, training.train.epochs
    start = f"{training.name}, {f'{epochs:g} epochs' if steps is None else f'{steps} steps'}"
    try:
        published, _ = adapt_recipe(recipe_of(protocol, training.name), backbone, source)
    except LaminaError:  # a recipe that was made in Python
        return variant_of(start, training, None)
    warm_up = published.optim.warmup_epochs * epochs / published.train.epochs  # as --epochs has it
    published = replace(published, optim=replace(published.optim, warmup_epochs=warm_up))
    return variant_of(start, training, published)


def _settings(recipe: Recipe) -> dict[str, Setting]:
    """The settings of the training that a reader of the score has to know."""
    settings: dict[str, Setting] = {
        "recipe": recipe.name,
        "epochs": recipe.train.epochs,
        "batch": recipe.train.batch_size,
        "lr": recipe.optim.base_lr * recipe.train.batch_size / 256,
        "pool": recipe.supervised.pool or "cls",
    }
    if recipe.train.max_steps is not None:
        settings["steps"] = recipe.train.max_steps
    if recipe.optim.layer_decay is not None:
        settings["layer_decay"] = recipe.optim.layer_decay
    return settings
