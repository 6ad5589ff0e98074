"""The linear probe for images with several labels each: a logistic regression for each label, with one
strength of the penalty for all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import permutation
from lamina.core.text import counted, printable
from lamina.features.average_precision import mean_average_precision
from lamina.features.linear import NOT_CONVERGED, few_threads, fit, fit_path
from lamina.features.options import LinearOptions
from lamina.features.probe import ProbeResult, edge_note
from lamina.features.standardize import Compact, Standardiser

_Array = np.ndarray[Any, np.dtype[Any]]


def probe_linear_several(
    train: Float[Tensor, "n D"],
    labels: Bool[Tensor, "n K"],
    test: Float[Tensor, "m D"],
    options: LinearOptions,
    seed: int,
) -> ProbeResult:
    """Choose C by the mean average precision on a part of the training set, drawn with `seed`, fit on all of
    it, and score the test set once; `predictions` are scores (m, K), higher for likelier labels.

    The regressions are those of `linear.fit_path`, of which each sums the cross-entropy of one label. A label
    that all training images have, or none, has the same score for all.

    Raises:
        LaminaError: where the part to validate on, or the rest, has no label that some images have and some
            have not.
    """
    held = np.zeros(len(labels), np.bool_)
    n_held = min(len(labels) - 1, max(1, round(options.validation_share * len(labels))))
    held[permutation(seed, 0, len(labels))[:n_held].numpy()] = True
    standardise = Standardiser.of(train)
    compact = Compact(standardise(train))
    rows, truth = compact.rows.numpy(), labels.numpy()
    with few_threads(rows.size * 2):
        best, quality, notes = _chosen(rows, truth, held, options)
        c = next(iter(best.values())).C
        rare = [k for k in range(truth.shape[1]) if k not in best and 0 < truth[:, k].sum() < len(truth)]
        best |= {k: next(fit_path(rows, truth[:, k], (c,))) for k in rare}
        converged = [fit(model, rows, truth[:, k]) for k, model in best.items()]
    scores = _scores(best, compact(standardise(test)).numpy(), truth.shape[1])
    notes += () if all(converged) else (NOT_CONVERGED,)
    return ProbeResult({"C": c}, quality, torch.from_numpy(scores), notes)


def _chosen(
    rows: _Array, truth: _Array, held: _Array, options: LinearOptions
) -> tuple[dict[int, LogisticRegression], float, tuple[str, ...]]:
    """A model for each label that can be learned, all with the best C; the mAP on the part that they were not
    fitted on; and notes."""
    fitted = truth[~held]
    usable = [k for k in range(truth.shape[1]) if 0 < fitted[:, k].sum() < len(fitted)]
    if not usable or not truth[held][:, usable].any():
        raise LaminaError(
            "too few images have labels: there is nothing to choose the strength of the penalty on; give "
            "more images, or name labels that more of them have"
        )
    paths = [fit_path(rows[~held], fitted[:, k], options.c) for k in usable]
    best, quality = dict[int, LogisticRegression](), -1.0
    for models in zip(*paths, strict=True):
        named = dict(zip(usable, models, strict=True))
        found = mean_average_precision(truth[held], _scores(named, rows[held], truth.shape[1]))
        if found > quality:
            best, quality = copy.deepcopy(named), found
    return best, quality, () if quality == 1 else edge_note("C", best[usable[0]].C, options.c)


def _scores(models: dict[int, LogisticRegression], rows: _Array, n_labels: int) -> _Array:
    """Logits of each label; 0 for those without a model."""
    scores = np.zeros((len(rows), n_labels))
    for k, model in models.items():
        scores[:, k] = model.decision_function(rows)
    return scores


def label_notes(
    names: Sequence[str], train: Bool[Tensor, "n K"], test: Bool[Tensor, "m K"]
) -> tuple[str, ...]:
    """A sentence on labels that no training image has, and on those that no test image has."""
    notes = []
    for part, known, effect in (
        ("training", train, "cannot be learned"),
        ("test", test, "cannot count in the mAP"),
    ):
        lacking = [name for name, some in zip(names, known.any(dim=0).tolist(), strict=True) if not some]
        if lacking:
            labels = counted(len(lacking), "label")
            notes.append(
                f"{labels} of {len(names)}, such as {printable(lacking[0])}, {effect}: no {part} image has "
                f"{'it' if len(lacking) == 1 else 'them'}"
            )
    return tuple(notes)
