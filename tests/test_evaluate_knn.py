"""kNN against scikit-learn's classifier and against the formula written out."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

import lamina.evaluate.knn as knn
from lamina.errors import LaminaError
from lamina.evaluate import KNNOptions, knn_predict, probe_knn


def clouds(n, seed, classes=5, width=12):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 1.5 * torch.randn(n, width, generator=generator), labels


@pytest.mark.parametrize("k", [1, 10, 70])
def test_equals_scikit_learn(k):
    (train, labels), (test, _) = clouds(200, 1), clouds(90, 2)
    # scikit-learn's cosine distance is 1 - similarity
    peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    expected = peer.fit(train.double().numpy(), labels.numpy()).predict(test.double().numpy())
    assert knn_predict(train, labels, test, (k,), 0.07)[0].tolist() == expected.tolist()


def written_out(train, labels, queries, k, temperature, leave_one_out):
    unit = train.double() / train.double().norm(dim=1, keepdim=True)
    guesses = []
    for i, query in enumerate(queries.double()):
        similarity = unit @ (query / query.norm())
        order = [j for j in similarity.argsort(descending=True).tolist() if not (leave_one_out and j == i)]
        votes = {}
        for j in order[:k]:
            weight = float(torch.exp(similarity[j] / temperature))
            votes[int(labels[j])] = votes.get(int(labels[j]), 0.0) + weight
        guesses.append(max(votes, key=votes.get))
    return guesses


def test_leave_one_out_equals_the_formula():
    train, labels = clouds(80, 3)
    found = knn_predict(train, labels, None, (1, 10, 20), 0.07)
    for guess, k in zip(found, (1, 10, 20), strict=True):
        assert guess.tolist() == written_out(train, labels, train, k, 0.07, leave_one_out=True)


def test_leave_one_out_never_sees_the_own_label():
    train = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    before = knn_predict(train, labels, None, (5,), 0.07)
    for i in range(40):
        flipped = labels.clone()
        flipped[i] = 1 - flipped[i]
        assert knn_predict(train, flipped, None, (5,), 0.07)[0, i] == before[0, i]


def test_slabs_change_nothing(monkeypatch):
    (train, labels), (test, _) = clouds(150, 1), clouds(70, 2)
    whole = knn_predict(train, labels, test, (10,), 0.07), knn_predict(train, labels, None, (10,), 0.07)
    monkeypatch.setattr(knn, "_MAX_CELLS", 150 * 7)
    sizes = [len(slab) for _, slab in knn._slabs(test, train)]
    assert max(sizes) == 7
    slabs = knn_predict(train, labels, test, (10,), 0.07), knn_predict(train, labels, None, (10,), 0.07)
    assert all(torch.equal(a, b) for a, b in zip(whole, slabs, strict=True))


def test_a_low_temperature_is_the_nearest_neighbour():
    (train, labels), (test, _) = clouds(100, 1), clouds(50, 2)
    cold = knn_predict(train, labels, test, (50,), 1e-4)
    assert torch.equal(cold, knn_predict(train, labels, test, (1,), 0.07))


def test_k_is_cut_to_the_data_and_chosen_on_the_training_set():
    (train, labels), (test, truth) = clouds(30, 1), clouds(40, 2)
    verdict = probe_knn(train, labels, test, KNNOptions(k=(10, 100, 200)))
    assert verdict.settings["k"] in (10, 29)
    by_hand = {
        (k, centred): float(
            (knn_predict(train - centred * train.mean(0), labels, None, (k,), 0.07)[0] == labels)
            .double()
            .mean()
        )
        for k in (10, 29)
        for centred in (False, True)
    }
    assert verdict.validation_top1 == max(by_hand.values())
    assert by_hand[verdict.settings["k"], verdict.settings["centred"]] == verdict.validation_top1
    assert len(verdict.predictions) == len(truth)


def test_dinos_protocol_is_one_option_away():
    (train, labels), (test, _) = clouds(60, 1), clouds(20, 2)
    verdict = probe_knn(train + 3, labels, test + 3, KNNOptions(k=(20,), centred=(False,)))
    assert verdict.settings == {"k": 20, "temperature": 0.07, "centred": False}
    assert torch.equal(verdict.predictions, knn_predict(train + 3, labels, test + 3, (20,), 0.07)[0])


@pytest.mark.parametrize("options", [{"k": ()}, {"k": (0,)}, {"temperature": 0.0}, {"centred": ()}])
def test_nonsense_is_refused(options):
    with pytest.raises(LaminaError):
        KNNOptions(**options)
