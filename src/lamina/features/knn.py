"""Weighted k-nearest-neighbour classification on frozen features (Wu et al. 2018, as DINO uses it)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.features.nearest import Chunks, nearest
from lamina.features.options import KNNOptions
from lamina.features.probe import ProbeResult, edge_note
from lamina.features.table import Setting


def selection_rows(n: int, most: int) -> Int64[Tensor, "m"]:
    """At most so many of n training samples, evenly spread: those that choices are made on."""
    m = min(n, most)
    return torch.arange(m) * n // m


def knn_predict(
    train: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    queries: Float[Tensor, "Q D"] | None,
    k: Sequence[int],
    temperature: float = 0.07,
    *,
    own: Int64[Tensor, "Q"] | None = None,
    centre: Float[Tensor, "D"] | None = None,
    device: torch.device | None = None,
    chunks: Chunks | None = None,
) -> Int64[Tensor, "K Q"]:
    """The class that the k most similar training samples vote for, one row for each value of `k`.

    Similarity is the cosine s, after `centre` is taken off; a vote weighs exp(s / temperature). Of equal sums
    the lower class wins, of equally similar samples the earlier ones vote. `queries=None` asks for
    training samples themselves, all or those that `own` lists, each without its own vote (leave-one-out).
    Memory stays bounded whatever n and Q are: `device` and `chunks` as for `nearest`. Classes come
    back where the labels are.
    """
    n_classes, known = int(labels.max()) + 1, labels.to(device or train.device)
    predictions = []
    for votes, rows in neighbour_votes(train, queries, k, temperature, own, centre, device, chunks):
        named = known[rows]
        predictions.append(torch.stack([_vote(votes[:, :m], named[:, :m], n_classes) for m in k]))
    return torch.cat(predictions, dim=1).to(labels.device)


def neighbour_votes(
    train: Float[Tensor, "n D"],
    queries: Float[Tensor, "Q D"] | None,
    k: Sequence[int],
    temperature: float,
    own: Int64[Tensor, "Q"] | None,
    centre: Float[Tensor, "D"] | None,
    device: torch.device | None,
    chunks: Chunks | None,
) -> Iterator[tuple[Float[Tensor, "q m"], Int64[Tensor, "q m"]]]:
    """The votes of the largest number of neighbours in `k`, nearest first, and their rows in `train`, for a
    chunk of the queries at a time; arguments as of `knn_predict`."""
    most = min(max(k), len(train) - (queries is None))
    if most < 1:
        raise LaminaError("leave-one-out needs at least 2 training samples")
    for found in nearest(train, queries, most, own=own, centre=centre, device=device, chunks=chunks):
        # Relative to the nearest: a common factor changes no vote, and exp(s / T) leaves float32 at a low T.
        yield ((found.similarity - found.similarity[:, :1]) / temperature).exp(), found.rows


def probe_knn(
    train: Float[Tensor, "n D"],
    labels: Int64[Tensor, "n"],
    test: Float[Tensor, "m D"] | None,
    options: KNNOptions,
    device: torch.device | None = None,
) -> ProbeResult:
    """Choose k and centring by leave-one-out on the training set, then classify the test set once.

    Of equal candidates the first listed wins; a note says where the chosen k is the smallest or the largest
    of the sweep and others exist beyond it. The labels of the test set are not an argument, so nothing here
    can look at them. `test=None` classifies the training samples themselves, each without its own vote.
    `device` is where it is computed.
    """
    return choose_neighbours(knn_predict, _accuracy, train, labels, test, options, device)


def choose_neighbours(
    answer: Callable[..., Iterable[Tensor]],
    quality: Callable[[Tensor, Tensor], float],
    train: Float[Tensor, "n D"],
    labels: Shaped[Tensor, "n *K"],
    test: Float[Tensor, "m D"] | None,
    options: KNNOptions,
    device: torch.device | None,
) -> ProbeResult:
    """What `probe_knn` does, for any answer of the neighbours.

    Args:
        answer: `knn_predict`, or another function with its arguments: an answer for each value of `k`.
        quality: how good answers are, given the labels; the largest is the best.
        train, labels, test, options, device: as for `probe_knn`.
    """
    k = tuple(dict.fromkeys(min(value, len(train) - 1) for value in options.k))
    train, selection = _on_device(train, device), selection_rows(len(train), options.selection_samples)
    mean, truth = train.mean(dim=0, dtype=torch.float32), labels[selection.to(labels.device)]
    answer = partial(answer, train, labels, temperature=options.temperature, device=device)
    candidates = []
    for centred in options.centred:
        found = answer(None, k, own=selection, centre=mean if centred else None)
        candidates += [(quality(each, truth), centred, value) for each, value in zip(found, k, strict=True)]
    best, centred, value = max(candidates, key=lambda candidate: candidate[0])
    (predictions,) = answer(test, (value,), centre=mean if centred else None)
    settings: dict[str, Setting] = {"k": value, "temperature": options.temperature, "centred": centred}
    notes = () if best == 1 or value in (1, len(train) - 1) else edge_note("k", value, sorted(k))
    return ProbeResult(settings, best, predictions, notes)


def _accuracy(predicted: Int64[Tensor, "m"], truth: Int64[Tensor, "m"]) -> float:
    return float((predicted == truth).double().mean())


def _on_device(train: Float[Tensor, "n D"], device: torch.device | None) -> Float[Tensor, "n D"]:
    """The features on a GPU, where that leaves half of its memory free; else as they are, and only chunks
    move."""
    if device is None or device.type != "cuda" or train.is_cuda:
        return train
    free, _ = torch.cuda.mem_get_info(device)
    return train.to(device) if 2 * train.nbytes < free else train


def _vote(votes: Float[Tensor, "q k"], labels: Int64[Tensor, "q k"], n_classes: int) -> Int64[Tensor, "q"]:
    sums = votes.new_zeros(len(votes), n_classes).scatter_add_(1, labels, votes)
    return sums.argmax(dim=1)
