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
from lamina.evaluate.fewshot.subsets import Draw, draw_from_list, draw_per_class, few, per_class_of
from lamina.evaluate.finetune.protocol import evaluate_trained, keep
from lamina.evaluate.finetune.recipes import FinetuneRecipe
from lamina.evaluate.protocol import ProtocolOptions, RunOptions
from lamina.evaluate.score import Score, Unfinished, named, score_file
from lamina.features.data import LabelledData, open_labelled
from lamina.features.extract import collect_for
from lamina.features.knn import probe_knn
from lamina.features.linear import fit_linear
from lamina.features.options import ComputeOptions, FeatureOptions, KNNOptions, LinearOptions
from lamina.features.pooling import BackboneVectors
from lamina.interop.backbone import Backbone
from lamina.interop.load import as_backbone
from lamina.runs.run import Run
from lamina.train.distributed import choose_device

KNN = KNNOptions(k=(1, 3, 5, 10, 20))
C_OF_ONE = 10.0
"""The linear probe's C where a class has one image, so that nothing can be held back to choose it on."""


class Answer(NamedTuple):
    """What was learned from a draw: test accuracy, in which variant, on how many images, and remarks."""

    top1: float
    confusion: Confusion | None
    variant: str
    n_train: int
    n_test: int
    notes: tuple[str, ...] = ()


class Drawn(NamedTuple):
    """What came of a draw."""

    answer: Answer
    seconds: float


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
    """A score for each amount of labels: the mean of its draws' test accuracies, and Student's 95 % interval
    over draws (of a single draw or a list, Wilson's over test images).

    Draws are functions of (seed, number): all models see the same images.

    Args:
        model: whatever `load_encoder` takes, or a backbone.
        data: labelled images in two parts; labels come from the first, all of the second is tested on.
        options: amounts, draws, and what learns.
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
    drawn = list(_draws(labelled.train, options, run_options.seed))
    judge = _judge(backbone, model, labelled, options, run_options, recipe, compute, encoder)
    scores: list[Score] = []
    with noted_on_interrupt(lambda: _so_far(scores, drawn, model, options), (Unfinished,)):
        for amount, draws in groupby(drawn, key=lambda draw: draw.amount):
            rows: list[Drawn] = []
            for draw in draws:
                started = time.perf_counter()
                answer = judge(draw)
                rows.append(Drawn(answer, time.perf_counter() - started))
                say(f"{amount}, draw {draw.number}: top1 {100 * answer.top1:.1f} %")
            scores.append(_score(draw, rows, backbone, labelled, options, run_options.seed))
            keep(scores[-1], model)
    return tuple(scores)


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_fewshot` as a row of `lamina.evaluate.catalog`."""
    few = FewshotOptions(per_class=options.few_per_class)
    return evaluate_fewshot(model, data, few, run_options, encoder=options.encoder, compute=compute)


def _so_far(
    scores: Sequence[Score], drawn: Sequence[Draw], model: str | Path | Backbone, options: FewshotOptions
) -> str:
    """What an interruption leaves, and how to go on."""
    amounts = list(dict.fromkeys(draw.amount for draw in drawn))
    done, left = amounts[: len(scores)], amounts[len(scores) :]
    place = None if isinstance(model, Backbone) or not scores else score_file(scores[0], Run(model).exists())
    where = "kept nowhere (the model is no run)" if place is None else f"kept in {place.parent}"
    told = f"scores of {', '.join(done)} are finished and {where}" if done else "no amount was finished"
    again = (
        "trainings go on with --resume"
        if options.classifier == "finetune"
        else "draws of an amount start anew"
    )
    return f"{told}; still to do: {', '.join(left)}, where {again}"


def _score(
    draw: Draw,
    rows: list[Drawn],
    backbone: Backbone,
    labelled: LabelledData,
    options: FewshotOptions,
    seed: int,
) -> Score:
    """The score of an amount, of which `draw` is the last draw."""
    values, n = [row.answer.top1 for row in rows], rows[0].answer.n_test
    mean = estimate(values, SHARE)
    found = Confusion.summed([row.answer.confusion for row in rows if row.answer.confusion is not None])
    interval, note = wilson_interval(round(mean.mean * n), n), "a single draw of labels"
    if mean.interval is not None and len(set(values)) > 1:
        interval, note = mean.interval, f"the interval is over {len(rows)} draws of labels"
    elif mean.interval is not None:
        note = f"all {len(rows)} draws gave one accuracy; the interval is over test images"
    return Score(
        protocol=f"fewshot-{options.classifier}-{draw.amount}",
        **named(backbone),
        data=labelled.name,
        metric="top1",
        value=mean.mean,
        interval=interval,
        n_train=rows[0].answer.n_train,
        n_test=n,
        seed=seed,
        settings={"by": options.classifier, "draws": len(rows), "pool": options.pool},
        more={
            **({} if found is None else found.numbers),
            **{f"draw {i}": value for i, value in enumerate(values)},
        },
        confusion=found,
        notes=(
            *labelled.notes,
            *labelled.trained_on(backbone),
            note,
            *_short(labelled.train, draw.amount, options),
            *_remarks(rows),
            *(() if found is None else found.majority_note()),
        ),
        seconds=round(sum(row.seconds for row in rows), 1),
        variant=_variant(rows[0].answer.variant, len(rows), options, draw.listing),
        images=labelled.images_digest,
    )


def _variant(learned: str, draws: int, options: FewshotOptions, listing: str = "") -> str:
    """How it was learned, which images a list names, and the number of draws where it is not the usual one; a
    list is one draw."""
    usual = draws in (FewshotOptions.draws, 1 if options.draws > 1 else FewshotOptions.draws)
    return ", ".join(filter(None, (learned, listing, "" if usual else f"{draws} draws")))


def _short(train: Source, amount: str, options: FewshotOptions) -> tuple[str, ...]:
    """What is to be said where classes have fewer images than were asked for."""
    assert train.labels is not None
    n = _amounts(train.labels, options).get(amount)
    counts = Counter(train.labels)
    if n is None or not (short := sum(count < n for count in counts.values())):
        return ()
    taken = sum(min(count, n) for count in counts.values())
    told = f"{short} of {len(counts)} classes have fewer than {n} images and give all: {taken} in all"
    return (f"{told}; every draw is the same, so there is one" if max(counts.values()) <= n else told,)


def _remarks(rows: list[Drawn]) -> tuple[str, ...]:
    """What was remarked, and in how many draws where not in all."""
    said = Counter(note for row in rows for note in row.answer.notes)
    n = len(rows)
    return tuple(note if times == n else f"in {times} of {n} draws {note}" for note, times in said.items())


def _draws(train: Source, options: FewshotOptions, seed: int) -> Iterator[Draw]:
    labels = train.labels
    assert labels is not None
    most = max(Counter(labels).values())
    for amount, n in _amounts(labels, options).items():
        for number in range(options.draws if n < most else 1):  # of all images there is one draw
            yield Draw(amount, number, draw_per_class(labels, n, seed, number))
    for file in options.lists:
        yield draw_from_list(train, file)


def _amounts(labels: Sequence[int], options: FewshotOptions) -> dict[str, int]:
    """Images of each class by what the amount is called."""
    amounts = {str(n): n for n in options.per_class}
    return amounts | {f"{100 * share:g}%": per_class_of(labels, share) for share in options.shares}


def _judge(
    backbone: Backbone,
    model: str | Path | Backbone,
    labelled: LabelledData,
    options: FewshotOptions,
    run_options: RunOptions,
    recipe: FinetuneRecipe | None,
    compute: ComputeOptions | None,
    encoder: str | EncoderOptions | None,
) -> Callable[[Draw], Answer]:
    """What learns from a draw and is tested."""
    if options.classifier != "finetune":
        return _frozen(backbone, labelled, options, compute or run_options.compute())

    def tuned(draw: Draw) -> Answer:
        called = f"{draw.amount}-draw{draw.number}"
        own = replace(run_options, out=None if run_options.out is None else run_options.out / called)
        subset = few(labelled.train, draw.indices)
        score = evaluate_trained(
            "finetune",
            model,
            labelled,
            own,
            recipe=recipe,
            encoder=encoder,
            train=subset,
            called=called,
        )
        return Answer(score.value, score.confusion, score.variant, score.n_train, score.n_test)

    return tuned


def _frozen(
    backbone: Backbone, labelled: LabelledData, options: FewshotOptions, compute: ComputeOptions
) -> Callable[[Draw], Answer]:
    """Features are computed once; a draw picks its rows."""
    backbone = backbone.to(choose_device(compute.device))
    vectors = BackboneVectors(backbone, FeatureOptions(features=("last",), pools=(options.pool,)))
    train, test = (
        collect_for(backbone, part, {"it": vectors}, compute) for part in (labelled.train, labelled.test)
    )
    (bank,), (asked,) = train.vectors.values(), test.vectors.values()
    row = {index: i for i, index in enumerate(train.index.tolist())}
    assert train.labels is not None
    assert test.labels is not None
    known, truth = train.labels, test.labels

    variant = "" if options.pool == "mean" else options.pool
    unread = (*train.unread("training images"), *test.unread("test images"))

    def probed(draw: Draw) -> Answer:
        few(labelled.train, draw.indices)
        rows = torch.tensor([row[i] for i in draw.indices if i in row])
        predicted, notes = _predict(options.classifier, bank[rows], known[rows], asked)
        found = Confusion.of(truth, predicted, labelled.classes)
        top1 = float((predicted == truth).double().mean())
        return Answer(top1, found, variant, len(rows), len(truth), (*unread, *notes))

    return probed


def _predict(
    classifier: Classifier,
    bank: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    asked: Float[Tensor, "m D"],
) -> tuple[Int64[Tensor, "m"], tuple[str, ...]]:
    if classifier == "knn":
        verdict = probe_knn(bank, labels, asked, KNN)
        return verdict.predictions, verdict.notes
    single = int(torch.bincount(labels).max()) == 1
    probe = fit_linear(bank, labels, LinearOptions(c=(C_OF_ONE,)) if single else LinearOptions(), seed=0)
    return probe.predict(asked), probe.notes
