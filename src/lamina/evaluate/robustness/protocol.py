"""Robustness: a classifier on corrupted images, and on ImageNet-C, -A, -R and -Sketch as published."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lamina.analyze.models import subsample
from lamina.core.config import differences
from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.core.intervals import wilson_interval
from lamina.core.text import without_secrets
from lamina.data.digest import joined_digests
from lamina.data.sources import Source, images_digest
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.load_classifier import Classifier, open_classifier
from lamina.evaluate.protocol import ProtocolOptions, RunOptions
from lamina.evaluate.result_files import file_name, save_in_run
from lamina.evaluate.robustness.corruptions.corrupt import Corruption
from lamina.evaluate.robustness.corruptions.kinds import KINDS, SEVERITIES, available_kinds
from lamina.evaluate.robustness.corruptions.mce import CorruptionScores, mean_error
from lamina.evaluate.robustness.imagenet_variants import (
    CLASSES,
    class_subset,
    imagenet_c_kinds,
    imagenet_wnids,
    open_imagenet_c,
    open_variant,
)
from lamina.evaluate.robustness.options import RobustnessOptions
from lamina.evaluate.robustness.partial_results import PartialResults
from lamina.evaluate.score import Score
from lamina.features.data import open_labelled
from lamina.features.options import ComputeOptions
from lamina.runs.run import Run

CLEAN = "clean"
WHOLE = (CLEAN, *CLASSES)
"""Parts whose confusion matrix is kept: images as they are, not one of the corruptions."""


class Part(NamedTuple):
    """Images that one error is measured on; `change` corrupts them while they are read."""

    name: str
    source: Source
    change: Corruption | None = None


def evaluate_robustness(
    model: str | Path,
    data: str | Path,
    options: RobustnessOptions | None = None,
    run_options: RunOptions | None = None,
    *,
    compute: ComputeOptions | None = None,
    encoder: str | EncoderOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Score:
    """Top-1 errors under corruption, or on a published set; what was measured is not measured again.

    The score's value is the mean error over kinds and severities (of ImageNet-A, -R and -Sketch the top-1
    accuracy, among their classes alone). `more` holds the error on clean images, that of each kind (mean over
    severities), and for ImageNet's classes mCE and relative mCE, each with what it was measured on in its
    name.

    Args:
        model: a run on labels, an exported classifier, timm/NAME on a published set without `probe_data`; of
            any other encoder a linear probe.
        data: labelled images in two parts, or the folder of a published set.
        options: which images.
        run_options: folder of what was measured (by default in the run), seed, whether to go on.
        compute: batch size, workers, device; by default with the device and workers of `run_options`.
        encoder: timm name or options of the network, for a weights file that does not say.
        say: told a line for each part.

    Raises:
        LaminaError: one line on what is wrong with the model, the data or the folder.
    """
    started = time.perf_counter()
    options, run_options = options or RobustnessOptions(), run_options or RunOptions()
    if run_options.resume:
        raise LaminaError(
            "robustness always continues in its folder, so that --resume has no effect: leave it out "
            "(--overwrite measures anew)"
        )
    compute = compute or run_options.compute()
    probe_data = options.probe_data or (str(data) if options.published is None else None)
    train = None if probe_data is None else open_labelled(probe_data).train
    classifier = open_classifier(model, train, compute, run_options.seed, options.pool, encoder)
    _check_probe_options(options, classifier)
    named = without_secrets(str(data))
    name = options.published or named
    train_digest = "" if train is None else images_digest(train)
    probe = (None if probe_data is None else without_secrets(probe_data), train_digest)
    settings = _settings(classifier, named, probe, options, run_options)
    measured: list[str] = []
    notes: dict[str, None] = {}
    digests = _Digests()
    with (
        PartialResults.opened(
            _folder(classifier, name, run_options), settings, run_options.overwrite
        ) as results,
        noted_on_interrupt(lambda: results.progress_note(measured)),
    ):
        for part in _parts(data, options, run_options.seed):
            measured.append(part.name)
            remark = results.check(part.name, digests(part.source))
            notes |= dict.fromkeys((*part.source.notes, *([remark] if remark else [])))
            if part.name not in results:
                _measure(part, classifier, options, compute, results, digests(part.source))
            say(f"{part.name}: top-1 error {100 * results.error(part.name):.1f} %")
        score = _score(classifier, name, options, measured, results, run_options.seed)
    seconds = round(time.perf_counter() - started, 1)
    images = joined_digests(digests.first, *([train_digest] if train_digest else []))
    score = replace(score, seconds=seconds, notes=(*notes, *score.notes), images=images)
    save_in_run(score, model)
    return score


def _check_probe_options(options: RobustnessOptions, classifier: Classifier) -> None:
    """Refuse options of the linear probe for a classifier that came trained."""
    changed = differences(RobustnessOptions(), options)
    given = [f"--{name.replace('_', '-')}" for name in ("probe_data", "pool") if name in changed]
    if given and classifier.n_train == 0:
        raise LaminaError(
            f"{classifier.name} is a trained classifier, for which no probe is fitted: leave out "
            f"{' and '.join(given)}"
        )


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_robustness` as a row of `lamina.evaluate.catalog`."""
    images, anyhow = RobustnessOptions(images=options.corrupted_images), replace(run_options, resume=False)
    score = evaluate_robustness(model, data, images, anyhow, compute=compute, encoder=options.encoder)
    return (score,)


class _Digests:
    """Digests of parts' images; most parts are of one source, whose digest is taken once."""

    def __init__(self) -> None:
        self.first = ""
        self._last: tuple[Source, str] | None = None

    def __call__(self, source: Source) -> str:
        if self._last is None or self._last[0] is not source:
            self._last = source, images_digest(source)
            self.first = self.first or self._last[1]
        return self._last[1]


def _measure(
    part: Part,
    classifier: Classifier,
    options: RobustnessOptions,
    compute: ComputeOptions,
    results: PartialResults,
    images: str,
) -> None:
    """Count the images of a part that are classified right, and write the count at once."""
    reader = classifier
    if options.published == "imagenet-c":  # its images are crops
        reader = replace(classifier, reading=replace(classifier.reading, eval_crop_share=1.0))
    found = reader.predict(part.source, compute, _subset(classifier, part.source), part.change)
    confusion = found.confusion if part.change is None and part.name in WHOLE else None
    results.add(part.name, found.right, len(found.labels), confusion, images)


def _parts(data: str | Path, options: RobustnessOptions, seed: int) -> Iterator[Part]:
    if options.published is None:
        test = subsample(open_labelled(data).test, options.images, seed)
        yield Part(CLEAN, test)
        for kind in options.kinds or available_kinds():
            for severity in SEVERITIES:
                yield Part(f"{kind} {severity}", test, Corruption(kind, severity, seed))
    elif options.published == "imagenet-c":
        for kind in options.kinds or imagenet_c_kinds(data):
            for severity in SEVERITIES:
                yield Part(
                    f"{kind} {severity}",
                    subsample(open_imagenet_c(data, kind, severity), options.images, seed),
                )
    else:
        yield Part(options.published, subsample(open_variant(data, options.published), options.images, seed))


def _subset(classifier: Classifier, source: Source) -> tuple[int, ...] | None:
    """Where the source's classes are among the classifier's; None where both are the same."""
    if tuple(source.class_names) == classifier.classes:
        return None
    return tuple(class_subset(classifier.classes, source.class_names).tolist())


def _settings(
    classifier: Classifier,
    data: str,
    probe_data: tuple[str | None, str],
    options: RobustnessOptions,
    run_options: RunOptions,
) -> dict[str, Any]:
    """The settings that all parts have in common; `probe_data` are the images of a probe by name and
    digest."""
    return {
        "model": classifier.name,
        "step": classifier.step,
        "network_sha256": classifier.sha256,
        "classifier": classifier.kind,
        "probe_data": probe_data[0] if classifier.n_train else None,
        "probe_images": probe_data[1] if classifier.n_train else None,
        "data": data,
        "published": options.published,
        "images": options.images,
        "seed": run_options.seed,
    }


def _folder(classifier: Classifier, name: str, run_options: RunOptions) -> Path | None:
    """The folder of the measurement: the one that was given, or one in the run that the classifier is."""
    if run_options.out is not None or not Run(classifier.name).exists():
        return run_options.out
    step = "" if classifier.step is None else f"@{classifier.step}"
    called = f"robustness-{file_name(name)}-seed{run_options.seed}{step}"
    return Run(classifier.name).evaluations / called


def _score(
    classifier: Classifier,
    data: str,
    options: RobustnessOptions,
    measured: list[str],
    results: PartialResults,
    seed: int,
) -> Score:
    score = Score(
        protocol="robustness-linear" if classifier.n_train else "robustness",
        model=classifier.name,
        step=classifier.step,
        data=data,
        metric="top1",
        value=0.0,
        interval=None,
        n_train=classifier.n_train,
        n_test=0,
        seed=seed,
        settings={"classifier": classifier.kind},
        notes=classifier.notes,
        variant=_variant(options),
    )
    if options.published in CLASSES:
        return _with_accuracy(score, options.published, results)
    kinds = [kind for kind in KINDS if f"{kind} {SEVERITIES[-1]}" in measured]  # the folder may have more
    errors = {kind: [results.error(f"{kind} {severity}") for severity in SEVERITIES] for kind in kinds}
    return _with_errors(score, errors, classifier.classes, options.published is None, results)


def _with_accuracy(score: Score, part: str, results: PartialResults) -> Score:
    """The score of a set that is not corrupted: the accuracy, among its classes alone."""
    right, n = results.counts(part)
    confusion = results.confusion(part)
    return replace(
        score,
        value=right / n,
        interval=wilson_interval(right, n),
        n_test=n,
        more={} if confusion is None else confusion.numbers,
        confusion=confusion,
        notes=(*score.notes, *(() if confusion is None else confusion.majority_note())),
    )


def _with_errors(
    score: Score,
    errors: dict[str, list[float]],
    classes: tuple[str, ...],
    generated: bool,
    results: PartialResults,
) -> Score:
    """The score of corrupted images: the mean error, and the errors of each kind and on clean images."""
    clean = results.error(CLEAN) if generated else None
    confusion = results.confusion(CLEAN) if generated else None
    imagenet = len(classes) == 1000 and set(classes) == set(imagenet_wnids())
    scores = CorruptionScores(errors, generated, clean, imagenet)
    more = {} if clean is None else {"clean error": clean}
    if confusion is not None:
        more |= {f"clean images: {name}": value for name, value in confusion.numbers.items()}
    more |= scores.named() | {f"{kind} error": mean_error({kind: each}) for kind, each in errors.items()}
    extent = f"corruptions {scores.remark}, {len(errors)} kinds x {len(SEVERITIES)} severities"
    majority = () if confusion is None else confusion.majority_note("top-1 on clean images")
    return replace(
        score,
        metric=f"mean error ({scores.remark})",
        value=mean_error(errors),
        n_test=results.counts(f"{next(iter(errors))} {SEVERITIES[0]}")[1],
        more=more,
        notes=(*score.notes, extent, *majority),
        confusion=confusion,
    )


def _variant(options: RobustnessOptions) -> str:
    """The options that differ from the defaults, as text."""
    images = [f"{options.images} images"] if options.images else []
    probe = [f"probe of {options.probe_data}"] if options.probe_data else []
    pool = [options.pool] if options.pool != RobustnessOptions.pool else []
    return ", ".join([*sorted(options.kinds), *images, *probe, *pool])
