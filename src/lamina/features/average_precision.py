"""Average precision of each of several labels, and their mean (mAP), as scikit-learn computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from lamina.core.errors import LaminaError

_RESAMPLES = 200
_Scores = np.ndarray[Any, np.dtype[Any]]


def average_precisions(truth: Bool[NDArray[np.bool_], "n K"], scores: _Scores) -> Float64[NDArray[Any], "K"]:
    """The area under precision over recall of each label, by steps, without interpolation
    (`sklearn.metrics.average_precision_score`); NaN for a label that no image has.

    Args:
        truth: which labels the images have.
        scores: (n, K), higher for labels that are more likely.
    """
    return np.array(
        [
            average_precision_score(known, found) if known.any() else np.nan
            for known, found in zip(truth.T, scores.T, strict=True)
        ]
    )


def mean_average_precision(truth: Bool[NDArray[np.bool_], "n K"], scores: _Scores) -> float:
    """`mean_over_labels` of `average_precisions`."""
    return mean_over_labels(average_precisions(truth, scores))


def mean_over_labels(precisions: Float64[NDArray[Any], "K"]) -> float:
    """The mean over the labels that some image has: those whose average precision is not NaN.

    Raises:
        LaminaError: where no image has any label.
    """
    if np.isnan(precisions).all():
        raise LaminaError("none of these images has a label, so there is no average precision")
    return float(np.nanmean(precisions))


def mean_prevalence(truth: Bool[NDArray[np.bool_], "n K"]) -> float:
    """The mean over the labels that some image has of the share of images that have it: the mAP of scores
    that say nothing."""
    return float(truth.mean(axis=0)[truth.any(axis=0)].mean())


def bootstrap_interval(
    truth: Bool[NDArray[np.bool_], "n K"], scores: _Scores, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the mAP over the choice of test images, by the percentiles of 200 resamples
    (Efron's percentile bootstrap); the labels stay those that some image has."""
    weights = np.random.default_rng(seed).multinomial(
        len(truth), np.full(len(truth), 1 / len(truth)), _RESAMPLES
    )
    values = [
        _weighted(known, found, weights)
        for known, found in zip(truth.T, scores.T, strict=True)
        if known.any()
    ]
    means = np.nanmean(np.stack(values), axis=0)
    low, high = np.nanpercentile(means, (2.5, 97.5))
    return float(low), float(high)


def _weighted(truth: _Scores, scores: _Scores, weights: _Scores) -> Float64[NDArray[Any], "R"]:
    """The average precision of one label, with each image counted as often as each row of `weights` says;
    NaN where no image that counts has the label."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # equal scores are one threshold
    having = np.flatnonzero(truth[order])
    places = ends[np.searchsorted(ends, having)]  # where the threshold of each image that has the label ends
    last = np.searchsorted(places, places, side="right") - 1
    found = np.empty(len(weights))
    for i, row in enumerate(weights):
        counts = row[order]
        taken, right = np.cumsum(counts)[places], np.cumsum(counts[having])
        precision = right[last] / np.maximum(taken, 1)
        found[i] = (counts[having] * precision).sum() / right[-1] if right[-1] else np.nan
    return found
