"""Nearest neighbours for images with several labels each: the weighted share of neighbours that have each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.features.average_precision import mean_average_precision
from lamina.features.knn import on_device, selection_rows
from lamina.features.nearest import nearest
from lamina.features.options import KNNOptions
from lamina.features.probe import ProbeResult, edge_note
from lamina.features.table import Setting


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
    most = min(max(k), len(train) - (queries is None))
    if most < 1:
        raise LaminaError("leave-one-out needs at least 2 training samples")
    known = labels.to(device or train.device)
    parts: list[list[Tensor]] = [[] for _ in k]
    for found in nearest(train, queries, most, own=own, centre=centre, device=device):
        # Relative to the nearest: a common factor changes no share, and exp(s / T) leaves float32 at a low T.
        votes = ((found.similarity - found.similarity[:, :1]) / temperature).exp()
        for part, m in zip(parts, k, strict=True):
            having = torch.einsum("qm,qml->ql", votes[:, :m], known[found.rows[:, :m]].to(votes.dtype))
            part.append(having / votes[:, :m].sum(dim=1, keepdim=True))
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
    k = tuple(dict.fromkeys(min(value, len(train) - 1) for value in options.k))
    train, selection = on_device(train, device), selection_rows(len(train), options.selection_samples)
    mean, truth = train.mean(dim=0, dtype=torch.float32), labels[selection.to(labels.device)].numpy()
    scores = partial(knn_scores, train, labels, temperature=options.temperature, device=device)
    candidates = []
    for centred in options.centred:
        found = scores(None, k, own=selection, centre=mean if centred else None)
        quality = [mean_average_precision(truth, each.numpy()) for each in found]
        candidates += [(each, centred, value) for each, value in zip(quality, k, strict=True)]
    best, centred, value = max(candidates, key=lambda candidate: candidate[0])
    (predictions,) = scores(test, (value,), centre=mean if centred else None)
    settings: dict[str, Setting] = {"k": value, "temperature": options.temperature, "centred": centred}
    notes = () if best == 1 or value in (1, len(train) - 1) else edge_note("k", value, sorted(k))
    return ProbeResult(settings, best, predictions, notes)
