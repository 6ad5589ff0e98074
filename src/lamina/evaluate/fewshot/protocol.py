"""The protocol of few labels: n images of each class, 1 %, 10 %; several draws, their mean and interval."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lamina.core.choices import check_read
from lamina.core.errors import noted_on_interrupt
from lamina.core.intervals import SHARE, estimate, wilson_interval
from lamina.data.sources import Source
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.confusion import Confusion
from lamina.evaluate.fewshot.options import Classifier, FewshotOptions
from lamina.evaluate.fewshot.subsets import (
    Draw,
    draw_from_list,
    draw_per_class,
    labelled_subset,
    per_class_of,
)
from lamina.evaluate.finetune.protocol import evaluate_trained
from lamina.evaluate.finetune.recipes import FinetuneRecipe
from lamina.evaluate.predictions import Predictions
from lamina.evaluate.protocol import ProtocolOptions, RunOptions
from lamina.evaluate.result_files import file_in_run, save_in_run
from lamina.evaluate.score import Score, Unfinished, model_and_step
from lamina.features.data import LabelledData, open_labelled
from lamina.features.extract import pooled_features
from lamina.features.knn import probe_knn
from lamina.features.linear import fit_linear
from lamina.features.options import ComputeOptions, KNNOptions, LinearOptions
from lamina.interop.backbone import Backbone
from lamina.interop.load import as_backbone
from lamina.train.distributed import choose_device

KNN = KNNOptions(k=(1, 3, 5, 10, 20))
C_OF_ONE = 10.0
"""The linear probe's C where a class has one image, so that nothing can be held back to choose it on."""


class DrawResult(NamedTuple):
    """The test of the classifier that was trained on one draw."""

    top1: float
    confusion: Confusion | None
    variant: str
    """The settings of the training that differ from the defaults, as text."""
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def evaluate_fewshot(
    model: str | Path | Backbone,
    data: str | Path | LabelledData,
    options: FewshotOptions | None = None,
    run_options: RunOptions | None = None,
    *,
    encoder: str | EncoderOptions | None = None,
    recipe: FinetuneRecipe | None = None,
    compute: ComputeOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Score, ...]:
    """A score for each label budget: the mean of its draws' test accuracies, and Student's 95 % interval
    over draws (of a single draw or a list, Wilson's over test images).

    Draws are functions of (seed, number): all models see the same images.

    Args:
        model: whatever `load_encoder` takes, or a backbone.
        data: labelled images in two parts; labels come from the first, all of the second is tested on.
        options: label budgets, draws, and the classifier.
        run_options: seed, device, workers; for finetune its folder, a subfolder for each draw.
        encoder: timm name or options of the network, for weights files that do not say.
        recipe: of fine-tuning.
        compute: how features are computed; by default with the device and workers of `run_options`.
        say: told a line for each draw.

    Raises:
        Unfinished: where fine-tuning was interrupted.
        LaminaError: one line on what is wrong with the model, the data, the lists or the folder.
    """
    options, run_options = options or FewshotOptions(), run_options or RunOptions()
    check_read(FewshotOptions(), options)
    labelled = open_labelled(data)
    backbone = as_backbone(model, encoder)
    draws = list(_draws(labelled.train, options, run_options.seed))
    test_draw = _tester(backbone, model, labelled, options, run_options, recipe, compute, encoder)
    scores: list[Score] = []
    with noted_on_interrupt(lambda: _so_far(scores, draws, model, options), (Unfinished,)):
        for budget, of_budget in groupby(draws, key=lambda draw: draw.budget):
            results: list[DrawResult] = []
            for draw in of_budget:
                started = time.perf_counter()
                result = test_draw(draw)
                results.append(result._replace(seconds=time.perf_counter() - started))
                say(f"{budget}, draw {draw.number}: top1 {100 * result.top1:.1f} %")
            scores.append(_score(draw, results, backbone, labelled, options, run_options.seed))
            save_in_run(scores[-1], model)
    return tuple(scores)


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_fewshot` as a row of `lamina.evaluate.catalog`."""
    few = FewshotOptions(per_class=options.few_per_class)
    return evaluate_fewshot(model, data, few, run_options, encoder=options.encoder, compute=compute)


def _so_far(
    scores: Sequence[Score], draws: Sequence[Draw], model: str | Path | Backbone, options: FewshotOptions
) -> str:
    """A sentence on what an interruption leaves, and how to go on."""
    budgets = list(dict.fromkeys(draw.budget for draw in draws))
    done, left = budgets[: len(scores)], budgets[len(scores) :]
    file = file_in_run(scores[0], model) if scores else None
    place = "kept nowhere (the model is no run)" if file is None else f"kept in {file.parent}"
    finished = f"scores of {', '.join(done)} are finished and {place}" if done else "no budget was finished"
    again = (
        "trainings go on with --resume"
        if options.classifier == "finetune"
        else "draws of a budget start anew"
    )
    return f"{finished}; still to do: {', '.join(left)}, where {again}"


def _score(
    draw: Draw,
    results: list[DrawResult],
    backbone: Backbone,
    labelled: LabelledData,
    options: FewshotOptions,
    seed: int,
) -> Score:
    """The score of a budget, of which `draw` is the last draw."""
    values, n = [result.top1 for result in results], results[0].n_test
    mean = estimate(values, SHARE)
    confusion = Confusion.summed([result.confusion for result in results if result.confusion is not None])
    interval, note = wilson_interval(round(mean.mean * n), n), "a single draw of labels"
    if mean.interval is not None and len(set(values)) > 1:
        interval, note = mean.interval, f"the interval is over {len(results)} draws of labels"
    elif mean.interval is not None:
        note = f"all {len(results)} draws gave one accuracy; the interval is over test images"
    return Score(
        protocol=f"fewshot-{options.classifier}-{draw.budget}",
        **model_and_step(backbone),
        data=labelled.name,
        metric="top1",
        value=mean.mean,
        interval=interval,
        n_train=results[0].n_train,
        n_test=n,
        seed=seed,
        settings={"by": options.classifier, "draws": len(results), "pool": options.pool},
        more={
            **({} if confusion is None else confusion.numbers),
            **{f"draw {i}": value for i, value in enumerate(values)},
        },
        confusion=confusion,
        notes=(
            *labelled.notes_for(backbone),
            note,
            *_short_classes(labelled.train, draw.budget, options),
            *_notes(results),
            *(() if confusion is None else confusion.majority_note()),
        ),
        seconds=round(sum(result.seconds for result in results), 1),
        variant=_variant(results[0].variant, len(results), options, draw.listing),
        images=labelled.images_digest,
    )


def _variant(trained: str, draws: int, options: FewshotOptions, listing: str = "") -> str:
    """How the classifier was trained, which images a list names, and the number of draws where it is not the
    usual one; a list is one draw."""
    usual = draws in (FewshotOptions.draws, 1 if options.draws > 1 else FewshotOptions.draws)
    return ", ".join(filter(None, (trained, listing, "" if usual else f"{draws} draws")))


def _short_classes(train: Source, budget: str, options: FewshotOptions) -> tuple[str, ...]:
    """A note where classes have fewer images than the budget."""
    assert train.labels is not None
    n = _budgets(train.labels, options).get(budget)
    counts = Counter(train.labels)
    if n is None or not (short := sum(count < n for count in counts.values())):
        return ()
    total = sum(min(count, n) for count in counts.values())
    note = f"{short} of {len(counts)} classes have fewer than {n} images and give all: {total} in all"
    return (f"{note}; every draw is the same, so there is one" if max(counts.values()) <= n else note,)


def _notes(results: list[DrawResult]) -> tuple[str, ...]:
    """The notes of the draws; one that not all of them have says of how many it is."""
    counts, n = Counter(note for result in results for note in result.notes), len(results)
    return tuple(note if times == n else f"in {times} of {n} draws {note}" for note, times in counts.items())


def _draws(train: Source, options: FewshotOptions, seed: int) -> Iterator[Draw]:
    labels = train.labels
    assert labels is not None
    most = max(Counter(labels).values())
    for budget, n in _budgets(labels, options).items():
        for number in range(options.draws if n < most else 1):  # of all images there is one draw
            yield Draw(budget, number, draw_per_class(labels, n, seed, number))
    for file in options.lists:
        yield draw_from_list(train, file)


def _budgets(labels: Sequence[int], options: FewshotOptions) -> dict[str, int]:
    """Images of each class, by the name of the budget."""
    budgets = {str(n): n for n in options.per_class}
    return budgets | {f"{100 * share:g}%": per_class_of(labels, share) for share in options.shares}


def _tester(
    backbone: Backbone,
    model: str | Path | Backbone,
    labelled: LabelledData,
    options: FewshotOptions,
    run_options: RunOptions,
    recipe: FinetuneRecipe | None,
    compute: ComputeOptions | None,
    encoder: str | EncoderOptions | None,
) -> Callable[[Draw], DrawResult]:
    """The function that trains the classifier on a draw and tests it."""
    if options.classifier != "finetune":
        return _probe_tester(backbone, labelled, options, compute or run_options.compute())

    def finetune(draw: Draw) -> DrawResult:
        called = f"{draw.budget}-draw{draw.number}"
        own = replace(run_options, out=None if run_options.out is None else run_options.out / called)
        score = evaluate_trained(
            "finetune",
            model,
            labelled,
            own,
            recipe=recipe,
            encoder=encoder,
            train=labelled_subset(labelled.train, draw.indices),
            called=called,
        )
        return DrawResult(score.value, score.confusion, score.variant, score.n_train, score.n_test)

    return finetune


def _probe_tester(
    backbone: Backbone, labelled: LabelledData, options: FewshotOptions, compute: ComputeOptions
) -> Callable[[Draw], DrawResult]:
    """The function for frozen features, which are computed once; each draw takes some of their rows."""
    backbone = backbone.to(choose_device(compute.device))
    (bank, train), (queries, test) = (
        pooled_features(backbone, part, options.pool, compute) for part in (labelled.train, labelled.test)
    )
    place = {index: i for i, index in enumerate(train.index.tolist())}
    labels, truth = train.known_labels, test.known_labels
    variant = "" if options.pool == "mean" else options.pool
    unread = (*train.unread("training images"), *test.unread("test images"))

    def probe(draw: Draw) -> DrawResult:
        labelled_subset(labelled.train, draw.indices)  # refuses a single class
        rows = torch.tensor([place[i] for i in draw.indices if i in place])
        predicted, notes = _predict(options.classifier, bank[rows], labels[rows], queries)
        found = Predictions(predicted, truth, labelled.classes)
        return DrawResult(found.top1, found.confusion, variant, len(rows), len(truth), (*unread, *notes))

    return probe


def _predict(
    classifier: Classifier,
    bank: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    queries: Float[Tensor, "m D"],
) -> tuple[Int64[Tensor, "m"], tuple[str, ...]]:
    """The predicted classes of the queries, and the notes of the classifier."""
    if classifier == "knn":
        result = probe_knn(bank, labels, queries, KNN)
        return result.predictions, result.notes
    single = int(torch.bincount(labels).max()) == 1
    probe = fit_linear(bank, labels, LinearOptions(c=(C_OF_ONE,)) if single else LinearOptions(), seed=0)
    return probe.predict(queries), probe.notes
