"""The linear probe: L2-regularised multinomial logistic regression on frozen, cached features.

The solver is scikit-learn's Newton-CG, each strength of the penalty started from the last: where a weak
penalty makes the problem ill-conditioned, it still comes close to the optimum, which L-BFGS does not within
a sensible number of steps.

Features are cached without random crops, so the numbers are not comparable with probes that are trained
with augmentation (MAE's 90 epochs of LARS).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.core.rng import permutation
from lamina.features.options import LinearOptions
from lamina.features.probe import ProbeResult, edge_note
from lamina.features.standardize import Compact, Standardiser

SINGLE = "each class has a single training image; a linear probe needs more"
NOT_CONVERGED = "the solver stopped before it met its tolerance"
ENOUGH_TO_STOP = 5_000
"""Validation samples from which on the sweep may end early. Of fewer, accuracy moves in coarse steps and
stands still over several values of C before it rises again; of so many, a standard error is 0.7 points at
most."""
_SMALL = 200_000_000
_Array = np.ndarray[Any, np.dtype[Any]]


def stratified_split(labels: Int64[Tensor, "n"], share: float, seed: int) -> Bool[Tensor, "n"]:
    """True for the samples to validate on: `share` of each class, drawn with `seed`.

    A class of two or more is on both sides; a single sample is not for validation.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    shuffled = permutation(seed, 0, len(labels))
    for label in sorted(set(labels.tolist())):
        members = shuffled[labels[shuffled] == label]
        chosen[members[: min(len(members) - 1, max(1, round(share * len(members))))]] = True
    return chosen


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe, with its accuracy on the held-out part and notes on how it was chosen."""

    standardise: Standardiser
    compact: Compact
    model: LogisticRegression
    validation_top1: float | None
    """On the part that was held back; None where there was none."""
    notes: tuple[str, ...] = ()
    """Notes on its accuracy: a solver that stopped early, a best C at an edge of the sweep."""

    def predict(self, features: Float[Tensor, "m D"]) -> Int64[Tensor, "m"]:
        """The most probable class of each row."""
        return torch.from_numpy(self.model.predict(self._rows(features)))

    def logits(self, features: Float[Tensor, "m D"], n_classes: int) -> Float[Tensor, "m classes"]:
        """Logits of all classes; those of classes that it was not trained on are minus infinity."""
        scores = torch.from_numpy(self.model.decision_function(self._rows(features)))
        if scores.ndim == 1:  # two classes have one number
            scores = torch.stack((-scores, scores), dim=1)
        logits = torch.full((len(scores), n_classes), -torch.inf, dtype=scores.dtype)
        logits[:, torch.from_numpy(self.model.classes_)] = scores
        return logits

    def _rows(self, features: Tensor) -> _Array:
        rows: _Array = self.compact(self.standardise(features)).numpy()
        return rows


def fit_linear(
    train: Float[Tensor, "n D"], labels: Int64[Tensor, "n"], options: LinearOptions, seed: int
) -> LinearProbe:
    """Choose C on a stratified split of the training set, and fit on all of it.

    Of equal values of C the smallest wins. Where each class has a single image there is nothing to choose on:
    it takes a single C.

    Raises:
        LaminaError: where each class has a single image, and there are several values of C.
    """
    held = stratified_split(labels, options.validation_share, seed)
    if not held.any() and len(options.c) > 1:
        raise LaminaError(SINGLE)
    standardise = Standardiser.of(train)
    compact = Compact(standardise(train))
    rows, truth = compact.rows.numpy(), labels.numpy()
    with few_threads(rows.size * len(set(labels.tolist()))):
        if held.any():
            best, top1, notes = _chosen(rows, truth, ~held.numpy(), options)
        else:
            best, top1, notes = _model().set_params(C=options.c[0], tol=_tolerance(options.c[0])), None, ()
        converged = fit(best, rows, truth)  # a chosen one from the weights that the smaller part gave
    return LinearProbe(standardise, compact, best, top1, (*notes, *(() if converged else (NOT_CONVERGED,))))


def _chosen(
    rows: _Array, truth: _Array, fitted_on: _Array, options: LinearOptions
) -> tuple[LogisticRegression, float | None, tuple[str, ...]]:
    """The model that is best on the samples that it was not fitted on, its accuracy there, and notes."""
    top1, best, worse = -1.0, _model(), 0
    may_end = int((~fitted_on).sum()) >= ENOUGH_TO_STOP
    for model in fit_path(rows[fitted_on], truth[fitted_on], options.c):
        right = float((model.predict(rows[~fitted_on]) == truth[~fitted_on]).mean())
        worse = worse + 1 if right < top1 else 0
        if right > top1:
            top1, best = right, copy.deepcopy(model)
        if may_end and worse >= options.patience:
            break
    return best, top1, () if top1 == 1 else edge_note("C", best.C, options.c)


def probe_linear(
    train: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    test: Float[Tensor, "m D"],
    options: LinearOptions,
    seed: int,
) -> ProbeResult:
    """`fit_linear` on the training set, then classify the test set once.

    The labels of the test set are not an argument, so nothing here can look at them.
    """
    probe = fit_linear(train, labels, options, seed)
    if probe.validation_top1 is None:
        raise LaminaError(SINGLE)
    return ProbeResult({"C": probe.model.C}, probe.validation_top1, probe.predict(test), probe.notes)


def _model() -> LogisticRegression:
    return LogisticRegression(solver="newton-cg", max_iter=200, warm_start=True)


def fit_path(rows: _Array, labels: _Array, c: Sequence[float]) -> Iterator[LogisticRegression]:
    """One classifier, fitted for each C in ascending order, each time from the weights before."""
    model = _model()
    for value in c:
        fit(model.set_params(C=value, tol=_tolerance(value)), rows, labels)
        yield model  # converged or not: validation measures the result


def fit(model: LogisticRegression, rows: _Array, labels: _Array) -> bool:
    """Fit, and return whether the solver met its tolerance; its own warnings are not printed."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(rows, labels)
    stopped = [
        w for w in caught if issubclass(w.category, ConvergenceWarning) or "Line Search" in str(w.message)
    ]
    for other in caught:
        if other not in stopped:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return not stopped


def _tolerance(c: float) -> float:
    """The weaker the penalty, the smaller the gradient that it leaves at the optimum of the value before."""
    return min(1e-4, 1e-2 / c)


def few_threads(work: int) -> threadpool_limits:
    """More threads bring small products little, and cost much where other programs keep the cores busy."""
    return threadpool_limits(1 if work < _SMALL else None, "blas")
