"""The verbs `lamina evaluate NAME` that need no recipe: probes, few labels, robustness, and `all`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from lamina.cli.arguments import ComputeArguments, Flat, Heads, Json, Labelled, Model, Network
from lamina.cli.config_file import read_config
from lamina.cli.output import check_json, print_scores, print_table, refresh_report, say, typed_command
from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT
from lamina.encoder.options import network_options
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.fewshot.options import FewshotOptions
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.robustness.options import RobustnessOptions
from lamina.features.options import FeatureOptions, KNNOptions, LinearOptions

if TYPE_CHECKING:
    from lamina.evaluate.score import Score

FEATURES, KNN, LINEAR, COMPUTE = FeatureOptions(), KNNOptions(), LinearOptions(), ComputeArguments()
FEW, RUN_OPTIONS, ROBUSTNESS, COMPARE = FewshotOptions(), RunOptions(), RobustnessOptions(), CompareOptions()


def knn(
    model: Model,
    data: Labelled,
    /,
    json: Json = None,
    leave_one_out: bool = False,
    features: Flat[FeatureOptions] = FEATURES,
    options: Flat[KNNOptions] = KNN,
    compute: Flat[ComputeArguments] = COMPUTE,
) -> int:
    """Classify by the k nearest neighbours on frozen features; the untrained network and raw pixels are
    evaluated too, as baselines.

    The similarity is the cosine, and votes are weighted by exp(similarity / temperature). k, centring,
    features and pool are chosen on the training images, never on the test images.

    Args:
        leave_one_out: Classify every image by all others; there are no separate test images.
        features: Which vectors of the encoder are evaluated.
        options: Candidates among which the training images choose.
        compute: How features are computed.
    """
    check_json(json)
    from lamina.evaluate.probes import evaluate_knn

    evaluate = partial(evaluate_knn, model, data, options=options, leave_one_out=leave_one_out)
    return _probe(evaluate, features, compute, json)


def linear(
    model: Model,
    data: Labelled,
    /,
    json: Json = None,
    seed: int = 0,
    features: Flat[FeatureOptions] = FEATURES,
    options: Flat[LinearOptions] = LINEAR,
    compute: Flat[ComputeArguments] = COMPUTE,
) -> int:
    """Fit a linear probe on frozen features; the untrained network and raw pixels are evaluated too, as
    baselines.

    Features are computed once and standardised. The strength of the penalty, the features and the pool are
    chosen on a part of the training images, never on the test images.

    Args:
        seed: Random seed of the part of the training images that choices are made on.
        features: Which vectors of the encoder are evaluated.
        options: Candidates among which the training images choose.
        compute: How features are computed.
    """
    check_json(json)
    from lamina.evaluate.probes import evaluate_linear

    evaluate = partial(evaluate_linear, model, data, options=options, seed=seed)
    return _probe(evaluate, features, compute, json)


def _probe(
    evaluate: Callable[..., Score], features: FeatureOptions, compute: ComputeArguments, json: Path | None
) -> int:
    from lamina.cli.progress import ImagesBar

    with ImagesBar() as bar:
        score = evaluate(features=features, **compute.arguments(bar))
    print_scores((score,), json)
    return 0


def fewshot(
    model: Model,
    data: Labelled,
    /,
    json: Annotated[
        Path | None, tyro.conf.arg(help="Also write the scores of all budgets to this file.")
    ] = None,
    network: Network = None,
    heads: Heads = None,
    recipe: str | None = None,
    config: Path | None = None,
    epochs: float | None = None,
    few: Flat[FewshotOptions] = FEW,
    run_options: Flat[RunOptions] = RUN_OPTIONS,
) -> int:
    """Train on few labels, with n images of each class or with shares of all images, and test on all test
    images. Reported are the mean over random subsets and its 95 % interval.

    Args:
        recipe: Recipe of fine-tuning; by default the published one for networks of the model's size. Only
            with --classifier finetune.
        config: YAML file with fields of that recipe. Only with --classifier finetune.
        epochs: Epochs of fine-tuning, in place of the recipe's; its warm-up keeps its share of them. Only
            with --classifier finetune.
        few: Label budgets, number of subsets, and the classifier.
        run_options: Seed and device; with --classifier finetune also the folder of its trainings.
    """
    check_json(json)
    changes: dict[str, Any] = {} if config is None else read_config(config)
    changes |= {"recipe": recipe} if recipe else {}
    trains = {"--recipe": recipe, "--config": config, "--epochs": epochs, "--out": run_options.out}
    given = [name for name, value in trains.items() if value is not None]
    given += [f"--{name}" for name in ("resume", "overwrite") if getattr(run_options, name)]
    if few.classifier != "finetune" and given:
        raise LaminaError(
            f"without fine-tuning {', '.join(given)} would have no effect, and the classifier is "
            f"{few.classifier}; add --classifier finetune, or leave {'it' if len(given) == 1 else 'them'} out"
        )
    from lamina.evaluate.compare.recipes import check_recipes
    from lamina.evaluate.fewshot.protocol import evaluate_fewshot
    from lamina.evaluate.finetune.adapt import classifier_recipe
    from lamina.evaluate.result_files import write_scores

    recipes = {"finetune": changes} if changes else {}
    check_recipes(recipes)
    known = network_options(network, heads)
    chosen = classifier_recipe("finetune", model, changes, epochs, known)
    scores = evaluate_fewshot(model, data, few, run_options, encoder=known, recipe=chosen, say=say)
    if json is not None:
        write_scores(json, scores)
    print_scores(scores)
    return 0


def robustness(
    model: Annotated[
        str,
        tyro.conf.arg(
            metavar="MODEL",
            help="A run on labels (such as a fine-tuning) or an exported classifier. For any other encoder a "
            "linear probe is fitted first.",
        ),
    ],
    data: Annotated[
        str,
        tyro.conf.arg(metavar="DATA", help="Labelled images in two parts, or the folder of a published set."),
    ],
    /,
    json: Json = None,
    network: Network = None,
    heads: Heads = None,
    batch_size: Annotated[int, COUNT] = 64,
    options: Flat[RobustnessOptions] = ROBUSTNESS,
    run_options: Flat[RunOptions] = RUN_OPTIONS,
) -> int:
    """Test a classifier on corrupted images, or on ImageNet-C, -A, -R or -Sketch as published.

    Results of each corruption are kept in the folder, and the same command continues from them: --resume is
    not needed and is refused.

    Args:
        batch_size: Images per forward pass.
        options: Which images.
        run_options: Folder, seed and device.
    """
    check_json(json)
    from lamina.evaluate.robustness.protocol import evaluate_robustness

    compute, known = run_options.compute(batch_size), network_options(network, heads)
    score = evaluate_robustness(model, data, options, run_options, compute=compute, encoder=known, say=say)
    print_scores((score,), json)
    return 0


def compare_all(
    models_and_data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL ... DATA")],
    /,
    out: Path,
    config: Path | None = None,
    options: Flat[CompareOptions] = COMPARE,
) -> int:
    """Run several models through a set of protocols with several seeds, and print one table.

    A model is MODEL, or NAME=MODEL, or NAME=RUN,RUN,RUN for runs of several seeds, each of which counts as
    one seed. Called again, the command continues where it stopped; features are cached.

    Args:
        models_and_data: Runs, steps of runs, timm names, weights files, or untrained:MODEL for the same
            network before training; and last the data: labelled images, root/CLASS/...,
            root/{train,val}/CLASS/..., or a sample.
        out: Folder of the comparison.
        config: YAML file with recipes by protocol. Its fields override those of the published recipe, or of
            the one that `recipe` names, such as 'finetune: {recipe: finetune-s, train: {epochs: 20}}'.
        options: Protocols, seeds and sizes.
    """
    if len(models_and_data) < 2:
        raise LaminaError(
            "give one model or more, and then the data: lamina evaluate all MODEL ... DATA --out FOLDER"
        )
    recipes = {} if config is None else read_config(config)
    from lamina.evaluate.compare.run import compare
    from lamina.evaluate.compare.table import Comparison
    from lamina.report.compare_page import write_comparison

    *models, data = models_and_data
    scores = compare(models, data, out, options, say, recipes)
    files = write_comparison(scores, data, out, typed_command())
    for model in sorted({score.model for each in scores.values() for score in each}):
        refresh_report(model)
    comparison = Comparison.of(scores)
    header, lines = comparison.table()
    print_table(header, [[cell.replace("**", "") for cell in line] for line in lines], gap=3)
    for sentence in (*comparison.gains(), *map(str, files)):
        say(sentence)
    return 0
