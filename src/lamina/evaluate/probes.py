"""kNN and the linear probe from end to end: features once, choices on the training images, one test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from lamina.core.config import describe_changes
from lamina.core.errors import LaminaError, noted_on_interrupt
from lamina.data.open import Spec
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.predictions import Predictions
from lamina.evaluate.protocol import ProtocolOptions, RunOptions
from lamina.evaluate.result_files import file_in_run
from lamina.evaluate.results import Row, mark_chosen
from lamina.evaluate.score import MEAN_AP, PREVALENCE, Score, model_and_step, scores_of_rows
from lamina.evaluate.several import SeveralPredictions, baseline_note
from lamina.features.baselines import extractors_with_baselines
from lamina.features.data import LabelledData, open_labelled
from lamina.features.extract import collect_for
from lamina.features.knn import probe_knn
from lamina.features.knn_several import probe_knn_several
from lamina.features.linear import probe_linear
from lamina.features.linear_several import label_notes, probe_linear_several
from lamina.features.options import ComputeOptions, FeatureOptions, KNNOptions, LinearOptions, Progress
from lamina.features.pooling import standardised_first
from lamina.features.probe import ProbeResult, group_notes
from lamina.features.standardize import standardised
from lamina.features.table import FeatureTable, ProbeName, Timing
from lamina.interop.backbone import Backbone
from lamina.interop.load import as_backbone
from lamina.train.distributed import choose_device

Probe = Callable[[Float[Tensor, "n D"], Int64[Tensor, "n"], Float[Tensor, "m D"] | None], ProbeResult]


@dataclass(frozen=True)
class _ProbeRun:
    """One of the two protocols, with its settings."""

    protocol: ProbeName
    probe: Probe
    selection: str
    seed: int
    variant: str
    """The settings of the sweep that differ from the defaults."""


LEFT_ONE_OUT = (
    "the test images are the training images, each without its own vote; rows and settings were chosen by "
    "the same accuracies"
)


def evaluate_knn(
    model: str | Path | Backbone,
    data: Spec | LabelledData,
    *,
    options: KNNOptions | None = None,
    features: FeatureOptions | None = None,
    leave_one_out: bool = False,
    encoder: str | EncoderOptions | None = None,
    image_size: tuple[int, ...] | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Score:
    """k nearest neighbours on frozen features (`knn.probe_knn`), beside the untrained network and raw pixels.

    Args:
        model: whatever `load_encoder` takes, or a backbone. For a run the result is also kept in `results/`.
        data: labelled images as `open_source` knows them, or two opened parts. Where both are one
            source, each image is classified without its own vote.
        options: the sweep.
        features: which vectors of the encoder, a row each.
        leave_one_out: take all images of `data` as training and test images at once.
        encoder: timm name or options of the network, for a weights file that does not say.
        image_size: a side, or height and width, in px, where it is not that of the training: positions are
            resampled, and a note says so.
        batch_size, workers, device, cache, progress: see `ComputeOptions`.

    Raises:
        LaminaError: one line on what is wrong with the model or the data.
    """
    compute = ComputeOptions(batch_size, workers, device, progress, cache)
    options, labelled = options or KNNOptions(), open_labelled(data, leave_one_out, several=True)
    classify = probe_knn_several if labelled.several else probe_knn
    probe = partial(classify, options=options, device=choose_device(device))
    selection = (
        "k, centring, features and pool by leave-one-out on the training images, at most "
        f"{options.selection_samples} of them"
    )
    return _evaluate(
        _ProbeRun("knn", probe, selection, 0, describe_changes(KNNOptions(), options)),
        model,
        labelled,
        features,
        encoder,
        image_size,
        compute,
    )


def evaluate_linear(
    model: str | Path | Backbone,
    data: Spec | LabelledData,
    *,
    options: LinearOptions | None = None,
    features: FeatureOptions | None = None,
    encoder: str | EncoderOptions | None = None,
    image_size: tuple[int, ...] | None = None,
    batch_size: int = 64,
    workers: int = 2,
    device: str = "auto",
    cache: str | Path | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Score:
    """A linear probe on frozen features (`linear.probe_linear`), beside the untrained network and raw pixels.

    `seed` draws the part of the training images that choices are made on; the other arguments are those of
    `evaluate_knn`. Test images are to be others than the training images.
    """
    compute = ComputeOptions(batch_size, workers, device, progress, cache)
    labelled, options = open_labelled(data, several=True), options or LinearOptions()
    if labelled.one_part:
        raise LaminaError(f"a linear probe needs test images of its own; {labelled.name} is one part alone")

    def probe(train: Tensor, labels: Tensor, test: Tensor | None) -> ProbeResult:
        assert test is not None
        fit = probe_linear_several if labelled.several else probe_linear
        return fit(train, labels, test, options, seed)

    part = "a part" if labelled.several else "a stratified part"
    selection = f"C, features and pool on {part} of the training images"
    return _evaluate(
        _ProbeRun("linear", probe, selection, seed, describe_changes(LinearOptions(), options)),
        model,
        labelled,
        features,
        encoder,
        image_size,
        compute,
    )


def run_knn(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_knn` as a row of `lamina.evaluate.catalog`."""
    return scores_of_rows(evaluate_knn(model, data, **_arguments(options, compute)))


def run_linear(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_linear` as a row of `lamina.evaluate.catalog`."""
    return scores_of_rows(evaluate_linear(model, data, seed=run_options.seed, **_arguments(options, compute)))


def _arguments(options: ProtocolOptions, compute: ComputeOptions) -> dict[str, Any]:
    features = FeatureOptions(features=options.features, pools=options.pools)
    return {"features": features, "encoder": options.encoder, **vars(compute)}


def _evaluate(
    probe_run: _ProbeRun,
    model: str | Path | Backbone,
    labelled: LabelledData,
    features: FeatureOptions | None,
    encoder: str | EncoderOptions | None,
    image_size: tuple[int, ...] | None,
    compute: ComputeOptions,
) -> Score:
    backbone = as_backbone(model, encoder, image_size).to(choose_device(compute.device))
    extractors, notes = extractors_with_baselines(backbone, features)
    one = labelled.one_part
    finished: list[str] = []
    with noted_on_interrupt(lambda: _kept_so_far(finished, compute.cache)):
        train = collect_for(backbone, labelled.train, extractors, compute)
        finished.append("training images")
        test = train if one else collect_for(backbone, labelled.test, extractors, compute)
        finished += [] if one else ["test images"]
        rows, remarks = probe_rows(train, test, probe_run.probe, labelled.classes)
    result = Score.of_rows(
        protocol=probe_run.protocol,
        **model_and_step(backbone),
        data=f"{labelled.name}, leave-one-out" if one else labelled.name,
        n_train=len(train.index),
        n_test=len(test.index),
        classes=labelled.classes,
        seed=probe_run.seed,
        selection=probe_run.selection,
        rows=rows,
        notes=(
            *labelled.notes_for(backbone),
            *notes,
            *((LEFT_ONE_OUT,) if one else ()),
            *_remarks(train, test),
            *_baseline_notes(rows),
            *remarks,
        ),
        metric=MEAN_AP if labelled.several else "top1",
        majority=next((row.confusion.majority for row in rows if row.confusion is not None), None),
        variant=_variant(features or FeatureOptions(), probe_run, backbone),
        timing=_timing(train, test),
        images=labelled.images_digest,
    )
    return _saved(result, file_in_run(result, model))


def probe_rows(
    train: FeatureTable, test: FeatureTable, probe: Probe, classes: Sequence[str] | None = None
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """A row for each kind of vectors, and the probe's notes on them.

    The choice among the rows follows from the training set alone. The same table as `test` asks the probe for
    its training samples, each without its own vote. `classes` are their names, by default their numbers.
    """
    known, truth = train.known_labels, test.known_labels
    several = known.ndim == 2
    n = known.shape[1] if several else 1 + int(max(known.max(), truth.max()))
    names = tuple(classes or map(str, range(n)))
    rows: list[Row] = []
    notes: list[tuple[str, str]] = []
    for key, features in train.vectors.items():
        queries = None if test is train else test.vectors[key]
        if standardised_first(key.features, key.pool):
            features, *others = standardised(features, *([] if queries is None else [queries]))
            queries = others[0] if others else None
        result = probe(features, known, queries)
        rows.append(
            Row(
                *key,
                result.settings,
                validation_top1=result.validation_top1,
                **_measured(result, truth, names),
            )
        )
        notes += [(rows[-1].label, note) for note in result.notes]
    found = label_notes(names, known, truth) if several else ()
    return mark_chosen(rows), (*found, *group_notes(notes, len(rows)))


def _measured(result: ProbeResult, truth: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a row that the test set decides."""
    if truth.ndim == 2:
        scored = SeveralPredictions(result.predictions, truth, names)
        return {"top1": scored.mean_average_precision, "interval": scored.interval, "more": scored.more}
    found = Predictions(result.predictions, truth, names)
    confusion = found.confusion
    return {
        "top1": found.top1,
        "interval": found.interval,
        "balanced": confusion.balanced,
        "confusion": confusion,
    }


def _saved(result: Score, file: Path | None) -> Score:
    """The result, written to `file` where there is one; where that fails, a note of it says so."""
    if file is None:
        return result
    try:
        result.save(file)
    except OSError as error:
        note = f"this result is not kept: {file} cannot be written ({error.strerror or error})"
        return replace(result, notes=(*result.notes, note))
    return result


def _remarks(train: FeatureTable, test: FeatureTable) -> tuple[str, ...]:
    """Notes on images that could not be read and features that could not be cached."""
    parts = [("training", train)] if test is train else [("training", train), ("test", test)]
    unread = [note for part, table in parts for note in table.unread(f"{part} images")]
    return (*unread, *dict.fromkeys(note for _, table in parts for note in table.notes))


def _variant(features: FeatureOptions, probe_run: _ProbeRun, backbone: Backbone) -> str:
    """Features, settings of the sweep and an image size that are not the usual ones."""
    size = None if backbone.origin is None else backbone.origin.image_size
    changes = describe_changes(FeatureOptions(), features), probe_run.variant
    return ", ".join(filter(None, (*changes, "" if size is None else f"image_size {size[0]} {size[1]}")))


def _kept_so_far(finished: Sequence[str], cache: str | Path | None) -> str:
    """A sentence on how much of an interrupted evaluation is kept."""
    whole = f"features of all {' and '.join(finished)} were computed" if finished else "no part was finished"
    if cache is None:
        return f"{whole}, and nothing is kept; with --cache FOLDER features are kept part by part"
    return f"{whole} and are kept in {cache}: the same command goes on from there" if finished else whole


def _baseline_notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """A note where the trained encoder does no better than one answer to all images."""
    chosen = next(row for row in rows if row.encoder == "trained" and row.chosen)
    if chosen.confusion is not None:
        return chosen.confusion.majority_note("top-1 of the trained encoder")
    return baseline_note(chosen.top1, chosen.more[PREVALENCE])


def _timing(train: FeatureTable, test: FeatureTable) -> Timing | None:
    if train.timing is None or test.timing is None or test is train:
        return train.timing
    return train.timing + test.timing
