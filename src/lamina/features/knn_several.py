"""Nearest neighbours for images with several labels each: the weighted share of neighbours that have each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.features.average_precision import mean_average_precision
from lamina.features.knn import choose_neighbours, neighbour_votes
from lamina.features.nearest import Chunks
from lamina.features.options import KNNOptions
from lamina.features.probe import ProbeResult


def knn_scores(
    train: Float[Tensor, "n D"],
    labels: Bool[Tensor, "n K"],
    queries: Float[Tensor, "Q D"] | None,
    k: Sequence[int],
    temperature: float = 0.07,
    *,
    own: Int64[Tensor, "Q"] | None = None,
    centre: Float[Tensor, "D"] | None = None,
    device: torch.device | None = None,
) -> list[Float[Tensor, "Q K"]]:
    """For each value of `k` the share of the k nearest training samples that have each label, weighted by
    exp(similarity / temperature). The other arguments are those of `knn.knn_predict`."""
    # Of each neighbour all labels are looked at: in so small chunks that these are no more than MOST_CELLS.
    cells = max(k) * max(1, labels.shape[1] // 2)
    chunks = Chunks.fitting(len(train), train.shape[1], cells)
    known = labels.to(device or train.device)
    parts: list[list[Tensor]] = [[] for _ in k]
    for votes, rows in neighbour_votes(train, queries, k, temperature, own, centre, device, chunks):
        having = known[rows].to(votes.dtype)
        for part, m in zip(parts, k, strict=True):
            weighted = torch.einsum("qm,qml->ql", votes[:, :m], having[:, :m])
            part.append(weighted / votes[:, :m].sum(dim=1, keepdim=True))
    return [torch.cat(part).float().to(labels.device) for part in parts]


def probe_knn_several(
    train: Float[Tensor, "n D"],
    labels: Bool[Tensor, "n K"],
    test: Float[Tensor, "m D"] | None,
    options: KNNOptions,
    device: torch.device | None = None,
) -> ProbeResult:
    """Choose k and centring by the leave-one-out mean average precision on the training set, then score the
    test set once; `predictions` are scores (m, K). Else as `knn.probe_knn`."""
    return choose_neighbours(knn_scores, _quality, train, labels, test, options, device)


def _quality(scores: Float[Tensor, "m K"], truth: Bool[Tensor, "m K"]) -> float:
    return mean_average_precision(truth.numpy(), scores.numpy())
