"""kNN against scikit-learn's classifier and against the formula written out."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from lamina.core.errors import LaminaError
from lamina.features.knn import knn_predict, probe_knn, selection_rows
from lamina.features.nearest import MOST_CELLS, Chunks, nearest
from lamina.features.options import KNNOptions


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


def dense(train, labels, queries, k, temperature, leave_one_out=False):
    """All similarities at once, in float64; of equal ones the lower row, of equal sums the lower class."""
    unit = [x.double() / x.double().norm(dim=1, keepdim=True) for x in (queries, train)]
    similarity = unit[0] @ unit[1].T
    if leave_one_out:
        similarity.fill_diagonal_(-torch.inf)
    similarity = similarity.numpy()
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weights = np.exp(np.take_along_axis(similarity, order, axis=1) / temperature)
    one_hot = np.eye(int(labels.max()) + 1)[labels.numpy()[order]]
    votes = (weights[..., None] * one_hot).sum(axis=1)
    return votes.argmax(1).tolist(), order.tolist()


CHUNKS = [(1, 1), (7, 7), (20, 1), (1, 50), (1000, 1000)]


@pytest.mark.parametrize("sizes", CHUNKS)
def test_chunks_change_nothing(sizes):
    (train, labels), (test, _) = clouds(50, 1), clouds(20, 2)
    centre, chunks = train.mean(0), Chunks(*sizes)
    for queries in (test, None):
        samples = train if queries is None else test
        for taken in (None, centre):
            found = knn_predict(train, labels, queries, (1, 10, 49), 0.07, centre=taken, chunks=chunks)
            off = 0 if taken is None else taken
            for guesses, k in zip(found, (1, 10, 49), strict=True):
                expected, _ = dense(train - off, labels, samples - off, k, 0.07, queries is None)
                assert guesses.tolist() == expected


@pytest.mark.parametrize("sizes", CHUNKS)
def test_of_equal_neighbours_the_lower_rows_are_taken(sizes):
    """Rows of signs: lengths and cosines are exact in any order of summation, and mostly equal."""
    generator = torch.Generator().manual_seed(0)
    bank = torch.randint(0, 2, (50, 16), generator=generator).float() * 2 - 1
    bank[20:40] = bank[7]
    queries = torch.cat([bank[[7, 21, 49]], bank[:9].flip(1)])
    for samples in (queries, None):
        for most in (1, 5, 30, 49):
            found = list(nearest(bank, samples, most, chunks=Chunks(*sizes)))
            rows = torch.cat([part.rows for part in found]).tolist()
            similarity = torch.cat([part.similarity for part in found])
            truth = dense(
                bank,
                (bank[:, 0] > 0).long(),
                bank if samples is None else samples,
                most,
                1.0,
                samples is None,
            )[1]
            assert rows == truth
            assert (similarity[:, :-1] >= similarity[:, 1:]).all()
    assert [part.start for part in nearest(bank, None, 3, chunks=Chunks(20, 7))] == [0, 20, 40]


def test_of_equal_sums_the_lower_class_wins():
    train = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    labels = torch.tensor([2, 1, 1, 2])
    assert knn_predict(train, labels, train, (4,)).tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(("n", "width"), [(10, 3), (1_280_000, 768), (2_000, 12_288), (5_000_000, 64)])
def test_the_largest_tensor_of_a_search_does_not_grow(n, width):
    chunks = Chunks.fitting(n, width, 200)
    assert chunks.bank <= n
    sizes = chunks.queries * chunks.bank, chunks.queries * width, chunks.bank * width, chunks.queries * 400
    assert max(sizes) <= MOST_CELLS
    assert n < 1000 or max(sizes) > MOST_CELLS // 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read where Linux has it")
def test_a_search_copies_no_bank():
    """Peak resident memory of a process, after a smaller search that has made room for its chunks."""
    grown, bank = map(int, subprocess.check_output([sys.executable, "-c", SEARCH]).split())
    assert grown < bank / 4


SEARCH = """
import torch
from lamina.features import nearest as neighbours
torch.set_num_threads(1)
neighbours.MOST_CELLS = 1 << 18
def peak():  # ru_maxrss would count what the parent holds
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
bank = torch.ones(1 << 16, 256).normal_()
def search(bank):
    return list(neighbours.nearest(bank, bank[:64], 20, centre=bank[0]))
search(bank[:4096])
before = peak()
search(bank)
print(peak() - before, bank.nbytes)
"""


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


@pytest.mark.parametrize(
    ("k", "chosen", "note"),
    [
        ((5, 11), 5, "the chosen k, 5, is the smallest of the sweep; a smaller one may be better"),
        ((11, 5), 5, "the chosen k, 5, is the smallest of the sweep; a smaller one may be better"),
        ((1, 11), 1, None),  # there is none below
        ((5, 3, 11), 5, None),
        ((5,), 5, None),  # no sweep
    ],
)
def test_a_best_k_on_an_edge_of_the_sweep_is_said(k, chosen, note):
    """Six samples in one direction, nine at right angles, the last of these with a wrong label. Up to k = 5 all
    votes come from the own direction; at k = 11 five of it stand against six of the other."""
    train = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 9)
    labels = torch.tensor([0] * 6 + [1] * 8 + [0])
    verdict = probe_knn(train, labels, train, KNNOptions(k=k, temperature=1e3, centred=(False,)))
    assert verdict.validation_top1 < 1
    assert verdict.settings["k"] == chosen
    assert verdict.notes == (() if note is None else (note,))


def test_without_a_test_part_the_training_samples_are_judged_by_the_others():
    train, labels = clouds(60, 1)
    verdict = probe_knn(train, labels, None, KNNOptions(k=(5, 20)))
    off = train.mean(0) if verdict.settings["centred"] else 0
    expected, _ = dense(train - off, labels, train - off, verdict.settings["k"], 0.07, leave_one_out=True)
    assert verdict.predictions.tolist() == expected
    assert verdict.validation_top1 == float((torch.tensor(expected) == labels).double().mean())
    own = probe_knn(train, labels, train, KNNOptions(k=(5, 20)))
    assert (own.predictions == labels).double().mean() > verdict.validation_top1  # each finds itself


@pytest.mark.parametrize("sizes", [None, *CHUNKS])
def test_some_training_samples_are_judged_by_all_others(sizes):
    train, labels = clouds(50, 1)
    own, chunks = torch.tensor([49, 3, 3, 20]), sizes and Chunks(*sizes)
    found = knn_predict(train, labels, None, (1, 10), own=own, chunks=chunks)
    assert torch.equal(found, knn_predict(train, labels, None, (1, 10))[:, own])


def test_candidates_are_judged_by_samples_evenly_spread():
    (train, labels), (test, _) = clouds(60, 1), clouds(20, 2)
    options = KNNOptions(k=(1, 5, 20), selection_samples=20)
    judges = selection_rows(60, options.selection_samples)
    assert judges.tolist() == list(range(0, 60, 3))
    assert selection_rows(7, options.selection_samples).tolist() == list(range(7))
    verdict = probe_knn(train, labels, test, options)
    best = 0.0
    for k in options.k:
        for off in (0, train.mean(0)):
            guesses = torch.tensor(dense(train - off, labels, train - off, k, 0.07, leave_one_out=True)[0])
            best = max(best, float((guesses == labels)[judges].double().mean()))
    assert verdict.validation_top1 == best
    assert verdict.validation_top1 != probe_knn(train, labels, test, KNNOptions(k=(1, 5, 20))).validation_top1


def test_dinos_protocol_is_one_option_away():
    (train, labels), (test, _) = clouds(60, 1), clouds(20, 2)
    verdict = probe_knn(train + 3, labels, test + 3, KNNOptions(k=(20,), centred=(False,)))
    assert verdict.settings == {"k": 20, "temperature": 0.07, "centred": False}
    assert torch.equal(verdict.predictions, knn_predict(train + 3, labels, test + 3, (20,), 0.07)[0])


@pytest.mark.parametrize(
    "options", [{"k": ()}, {"k": (0,)}, {"temperature": 0.0}, {"centred": ()}, {"selection_samples": 0}]
)
def test_nonsense_is_refused(options):
    with pytest.raises(LaminaError):
        KNNOptions(**options)
