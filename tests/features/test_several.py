"""Average precision, the linear probe and nearest neighbours for images with several labels, against
scikit-learn on the same features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from lamina.core.errors import LaminaError
from lamina.core.rng import permutation
from lamina.features import knn_several, nearest
from lamina.features.average_precision import (
    _weighted,
    average_precisions,
    bootstrap_interval,
    mean_average_precision,
    mean_prevalence,
)
from lamina.features.knn_several import knn_scores, probe_knn_several
from lamina.features.linear_several import label_notes, probe_linear_several
from lamina.features.options import KNNOptions, LinearOptions


def labelled(n: int, seed: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of 12 channels, and three labels that are linear in them but for noise."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, 12, generator=generator)
    weights = torch.randn(12, 3, generator=torch.Generator().manual_seed(99))
    logits = features @ weights + noise * torch.randn(n, 3, generator=generator)
    return features, logits > torch.tensor([0.0, 1.5, 3.0])


def test_average_precision_is_scikit_learns_where_scores_are_equal_too() -> None:
    draws = np.random.default_rng(0)
    truth, scores = draws.random((200, 4)) < 0.2, draws.integers(0, 9, (200, 4)).astype(float)
    weights = draws.multinomial(200, np.full(200, 1 / 200), 5)
    for k in range(4):
        expected = [average_precision_score(truth[:, k], scores[:, k], sample_weight=row) for row in weights]
        assert _weighted(truth[:, k], scores[:, k], weights) == pytest.approx(expected, abs=1e-12)
    every = [average_precision_score(truth[:, k], scores[:, k]) for k in range(4)]
    assert average_precisions(truth, scores) == pytest.approx(every)
    truth[:, 2] = False
    assert np.isnan(average_precisions(truth, scores)[2])
    assert mean_average_precision(truth, scores) == pytest.approx(np.mean([every[k] for k in (0, 1, 3)]))
    with pytest.raises(LaminaError, match="none of these images has a label"):
        mean_average_precision(truth & False, scores)


def test_scores_that_say_nothing_have_the_mean_prevalence() -> None:
    draws = np.random.default_rng(1)
    truth = draws.random((4000, 3)) < np.array([0.1, 0.3, 0.5])
    assert mean_average_precision(truth, np.zeros((4000, 3))) == pytest.approx(mean_prevalence(truth))
    low, high = bootstrap_interval(truth, draws.random((4000, 3)))
    assert low < mean_prevalence(truth) < high
    assert high - low < 0.05


def test_the_linear_probe_is_a_logistic_regression_for_each_label() -> None:
    train, labels = labelled(300, 1)
    test, _ = labelled(100, 2)
    found = probe_linear_several(train, labels, test, LinearOptions(c=(0.1, 1.0)), seed=0)
    mean, scale = train.mean(0), train.std(0, correction=0)
    rows, queries = ((each - mean) / scale / 12**0.5 for each in (train, test))
    for k in range(3):
        model = LogisticRegression(C=found.settings["C"], solver="lbfgs", tol=1e-10, max_iter=10_000)
        expected = model.fit(rows.numpy(), labels[:, k].numpy()).decision_function(queries.numpy())
        np.testing.assert_allclose(found.predictions[:, k], expected, atol=5e-3)


def test_labels_that_cannot_be_learned_say_nothing_and_are_named() -> None:
    train, labels = labelled(200, 1)
    test, truth = labelled(100, 2)
    labels = torch.cat((labels, torch.zeros(200, 1, dtype=torch.bool)), dim=1)
    truth = torch.cat((truth, torch.zeros(100, 1, dtype=torch.bool)), dim=1)
    truth[0, 3] = True
    found = probe_linear_several(train, labels, test, LinearOptions(), seed=0)
    assert found.predictions[:, 3].unique().tolist() == [0]
    assert found.validation_top1 > 0.8
    names = ("a", "b", "c", "d")
    assert label_notes(names, labels, truth) == (
        "1 label of 4, such as d, cannot be learned: no training image has it",
    )
    assert label_notes(names, truth, labels) == (
        "1 label of 4, such as d, cannot count in the mAP: no test image has it",
    )
    with pytest.raises(LaminaError, match="too few images have labels"):
        probe_linear_several(train, labels & False, test, LinearOptions(), seed=0)


def test_a_label_of_the_held_part_alone_is_learned_from_all_images() -> None:
    train, labels = labelled(200, 1)
    (rare,) = permutation(0, 0, 200)[:1]  # the first one that is held back to choose C
    labels = torch.cat((labels, torch.zeros(200, 1, dtype=torch.bool)), dim=1)
    labels[rare, 3] = True
    found = probe_linear_several(train, labels, train, LinearOptions(c=(1.0,)), seed=0)
    assert found.predictions[:, 3].argmax() == rare


@pytest.mark.parametrize("centred", [False, True])
def test_nearest_neighbours_give_their_weighted_share(centred: bool) -> None:
    train, labels = labelled(60, 3)
    queries, _ = labelled(20, 4)
    centre = train.mean(0) if centred else torch.zeros(12)
    unit = [torch.nn.functional.normalize(each - centre, dim=1).double() for each in (train, queries)]
    cosines = unit[1] @ unit[0].T
    found = knn_scores(train, labels, queries, (1, 7), 0.2, centre=centre if centred else None)
    for k, scores in zip((1, 7), found, strict=True):
        near = cosines.argsort(dim=1, descending=True)[:, :k]
        votes = (cosines.gather(1, near) / 0.2).exp()
        expected = (votes[:, :, None] * labels[near]).sum(1) / votes.sum(1, keepdim=True)
        torch.testing.assert_close(scores.double(), expected, atol=1e-5, rtol=0)
    (own,) = knn_scores(train, labels, None, (1,), own=torch.arange(60))
    if not centred:
        closest = (unit[0] @ unit[0].T).fill_diagonal_(-2).argmax(1)
        assert torch.equal(own > 0.5, labels[closest])


def test_the_labels_of_all_neighbours_take_no_more_memory_than_a_chunk_may(monkeypatch) -> None:
    train, queries = labelled(60, 3)[0], labelled(50, 4)[0]
    labels = torch.rand(60, 64, generator=torch.Generator().manual_seed(5)) < 0.2
    expected = knn_scores(train, labels, queries, (3, 7))
    most, cells, votes_of = 4096, [], knn_several.neighbour_votes

    def counted(*arguments):
        for votes, rows in votes_of(*arguments):
            cells.append(rows.numel() * labels.shape[1])
            yield votes, rows

    monkeypatch.setattr(knn_several, "neighbour_votes", counted)
    monkeypatch.setattr(nearest, "MOST_CELLS", most)
    found = knn_scores(train, labels, queries, (3, 7))
    assert max(cells) <= most < sum(cells)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_neighbours_are_chosen_by_leave_one_out() -> None:
    train, labels = labelled(150, 1, noise=0.1)
    test, truth = labelled(100, 2, noise=0.1)
    found = probe_knn_several(train, labels, test, KNNOptions(k=(1, 5, 140), centred=(False,)))
    unit = torch.nn.functional.normalize(train, dim=1).double()
    cosines = (unit @ unit.T).fill_diagonal_(-2)
    quality = {}
    for k in (1, 5, 140):
        near = cosines.argsort(dim=1, descending=True)[:, :k]
        votes = (cosines.gather(1, near) / 0.07).exp()
        scores = (votes[:, :, None] * labels[near]).sum(1) / votes.sum(1, keepdim=True)
        quality[k] = average_precision_score(labels, scores, average="macro")
    assert found.settings["k"] == max(quality, key=quality.get)
    assert found.validation_top1 == pytest.approx(max(quality.values()), abs=1e-4)
    assert (
        mean_average_precision(truth.numpy(), found.predictions.numpy())
        > mean_prevalence(truth.numpy()) + 0.2
    )
