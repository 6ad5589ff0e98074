"""Weighted k-nearest-neighbour classification on frozen features (Wu et al. 2018, as DINO uses it)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from lamina.errors import LaminaError
from lamina.evaluate.probe import Verdict
from lamina.evaluate.results import Setting

_MAX_CELLS = 1 << 24  # similarities held at once: 64 MiB of float32


@dataclass(frozen=True)
class KNNOptions:
    """The sweep of a kNN evaluation; every combination is judged by leave-one-out on the training set."""

    k: tuple[int, ...] = (10, 20, 100, 200)
    """Neighbours that vote; values beyond the training set are cut to its size."""
    temperature: float = 0.07
    """Of the vote exp(similarity / temperature)."""
    centred: tuple[bool, ...] = (False, True)
    """Whether the mean of the training features is taken off before the cosine. DINO does not (False alone);
    raw pixels and untrained features, all positive or nearly parallel, gain by it, and so does MAE."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        if not self.k or min(self.k) < 1:
            raise LaminaError(f"k must be one or more numbers from 1 on, not {self.k}")
        if self.temperature <= 0:
            raise LaminaError(f"temperature must be above 0, not {self.temperature}")
        if not self.centred:
            raise LaminaError("centred must hold False, True or both")


def knn_predict(
    train: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    queries: Float[Tensor, "Q D"] | None,
    k: Sequence[int],
    temperature: float = 0.07,
) -> Int64[Tensor, "K Q"]:
    """The class that the k most similar training samples vote for, one row for each value of `k`.

    Similarity is the cosine s, a vote weighs exp(s / temperature), and of equal sums the lower class
    wins. `queries=None` asks for the training samples themselves, each without its own vote
    (leave-one-out). Memory stays bounded: similarities are formed a slab of queries at a time.
    """
    train = F.normalize(train.float(), dim=1)
    asked = train if queries is None else F.normalize(queries.float(), dim=1)
    most = min(max(k), len(train) - (queries is None))
    if most < 1:
        raise LaminaError("leave-one-out needs at least 2 training samples")
    n_classes = int(labels.max()) + 1
    predictions = []
    for start, similarity in _slabs(asked, train):
        if queries is None:
            own = torch.arange(len(similarity), device=train.device)
            similarity[own, own + start] = -torch.inf
        nearest, index = similarity.topk(most, dim=1)
        # Relative to the nearest: a common factor elects nobody, and exp(s / T) leaves float32 at a low T.
        votes = ((nearest - nearest[:, :1]) / temperature).exp()
        predictions.append(torch.stack([_elect(votes[:, :m], labels[index[:, :m]], n_classes) for m in k]))
    return torch.cat(predictions, dim=1)


def probe_knn(
    train: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    test: Float[Tensor, "m D"],
    options: KNNOptions,
) -> Verdict:
    """Choose k and centring by leave-one-out on the training set, then classify the test set once.

    Of equal candidates the first listed wins. The labels of the test set are not an argument, so
    nothing here can look at them.
    """
    k = tuple(dict.fromkeys(min(value, len(train) - 1) for value in options.k))
    mean = train.mean(dim=0)
    candidates = []
    for centred in options.centred:
        guesses = knn_predict(train - centred * mean, labels, None, k, options.temperature)
        right = (guesses == labels).double().mean(dim=1).tolist()
        candidates += [(top1, centred, value) for top1, value in zip(right, k, strict=True)]
    top1, centred, value = max(candidates, key=lambda candidate: candidate[0])
    train, test = train - centred * mean, test - centred * mean
    predictions = knn_predict(train, labels, test, (value,), options.temperature)[0]
    settings: dict[str, Setting] = {"k": value, "temperature": options.temperature, "centred": centred}
    return Verdict(settings, top1, predictions)


def _slabs(queries: Tensor, train: Tensor) -> Iterator[tuple[int, Float[Tensor, "q n"]]]:
    rows = max(1, _MAX_CELLS // len(train))
    for start in range(0, len(queries), rows):
        yield start, queries[start : start + rows] @ train.T


def _elect(votes: Float[Tensor, "q k"], labels: Int64[Tensor, "q k"], n_classes: int) -> Int64[Tensor, "q"]:
    sums = votes.new_zeros(len(votes), n_classes).scatter_add_(1, labels, votes)
    return sums.argmax(dim=1)
