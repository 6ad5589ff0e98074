"""The linear probe: the optimum that scikit-learn finds, separable data, shuffled labels, the unseen test set."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from lamina.core.errors import LaminaError
from lamina.features import linear
from lamina.features.linear import NOT_CONVERGED, fit, fit_linear, fit_path, probe_linear, stratified_split
from lamina.features.options import LinearOptions
from lamina.features.standardize import Compact, Standardiser


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clouds(n, seed, classes=4, width=10, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(9))
    return centres[labels] + spread * torch.randn(n, width, generator=generator), labels


@pytest.mark.parametrize(("n", "width"), [(120, 10), (60, 400)], ids=["narrow", "wide"])
def test_equals_scikit_learn_on_the_plain_features(n, width):
    (train, labels), (test, _) = clouds(n, 1, width=width, spread=4), clouds(200, 2, width=width, spread=4)
    standardise = Standardiser.of(train)
    x, scaled_queries = standardise(train).numpy(), standardise(test).numpy()
    compact = Compact(standardise(train))
    queries = compact(standardise(test)).numpy()
    for model in fit_path(compact.rows.numpy(), labels.numpy(), (1.0, 100.0)):
        peer = LogisticRegression(C=model.C, solver="lbfgs", tol=1e-10, max_iter=20000).fit(x, labels.numpy())
        assert abs(model.predict_proba(queries) - peer.predict_proba(scaled_queries)).max() < 0.01


def test_wide_features_keep_their_inner_products():
    x = Standardiser.of(noise(30, 500))(noise(30, 500, seed=1))
    other = noise(7, 500, seed=2).double()
    compact = Compact(x)
    assert compact.rows.shape == (30, 30)
    torch.testing.assert_close(compact.rows @ compact.rows.T, x @ x.T, atol=1e-8, rtol=0)
    torch.testing.assert_close(compact(other) @ compact.rows.T, other @ x.T, atol=1e-6, rtol=0)


@pytest.mark.parametrize("width", [3, 300])
def test_rows_have_a_mean_squared_length_of_one_at_any_width(width):
    train = noise(50, width) * 7 + 3
    assert Standardiser.of(train)(train).square().sum(1).mean() == pytest.approx(1, rel=1e-9)


def test_features_that_never_change_are_silenced():
    train = noise(40, 6)
    train[:, 2] = 0.3  # not representable: its float64 deviation may round above zero
    test = noise(10, 6, seed=1) * 1e6
    assert (Standardiser.of(train)(test)[:, 2] == 0).all()


def test_separable_data_is_learnt_entirely():
    (train, labels), (test, truth) = clouds(120, 1, spread=0.05), clouds(80, 2, spread=0.05)
    verdict = probe_linear(train, labels, test, LinearOptions(), seed=0)
    assert torch.equal(verdict.predictions, truth)
    assert verdict.validation_top1 == 1


def test_two_classes_work_too():
    (train, labels), (test, truth) = clouds(60, 1, 2, spread=0.05), clouds(40, 2, 2, spread=0.05)
    assert torch.equal(probe_linear(train, labels, test, LinearOptions(), seed=0).predictions, truth)


def digits(n, seed):
    data = load_digits()
    chosen = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(seed))[:n]
    return torch.tensor(data.data, dtype=torch.float32)[chosen], torch.tensor(data.target)[chosen]


@pytest.mark.parametrize(("n", "seed"), [(40, 4), (40, 0), (90, 0)])
def test_a_small_set_is_swept_entirely(n, seed):
    """Accuracy stands still over several values of C, and then rises again."""
    train, labels = digits(n, seed)
    held = stratified_split(labels, 0.25, seed=0)
    x, truth = Standardiser.of(train)(train).numpy(), labels.numpy()
    right = {}
    for c in LinearOptions().c:
        peer = LogisticRegression(C=c, tol=1e-8, max_iter=5000).fit(x[~held], truth[~held])
        right[c] = float((peer.predict(x[held]) == truth[held]).mean())
    probe = fit_linear(train, labels, LinearOptions(), seed=0)
    assert probe.validation_top1 == pytest.approx(max(right.values()))
    assert right[probe.model.C] == max(right.values())


def test_a_large_set_ends_its_sweep_where_the_accuracy_falls(monkeypatch):
    tried = []

    def path(rows, truth, c):
        for value, accuracy in zip(c, (0.5, 0.5, 0.5, 0.7, 0.6, 0.6, 0.9), strict=True):
            tried.append(value)
            yield SimpleNamespace(
                C=value, predict=lambda rows, a=accuracy: np.arange(len(rows)) >= a * len(rows)
            )

    monkeypatch.setattr(linear, "fit_path", path)
    rows, truth, kept = np.zeros((10_000, 1)), np.zeros(10_000), np.arange(10_000) < 5_000
    options = LinearOptions(c=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0))
    best, top1, notes = linear._chosen(rows, truth, kept, options)
    assert (best.C, top1, tried[-1], notes) == (4.0, 0.7, 6.0, ())  # a tie is not worse
    best, top1, notes = linear._chosen(rows[1:], truth[1:], kept[:-1] | (np.arange(9_999) == 5_000), options)
    assert (best.C, tried[-1]) == (7.0, 7.0)  # 4,999 samples to validate on
    assert notes == ("the chosen C, 7, is the largest of the sweep; a larger one may be better",)


def test_a_best_value_at_an_edge_is_said():
    (train, labels), (test, _) = clouds(200, 1, spread=1.5), clouds(20, 2)
    (note,) = probe_linear(train, labels, test, LinearOptions(c=(1e3, 1e5)), seed=0).notes
    assert "is the smallest of the sweep" in note


def test_shuffled_labels_stay_at_chance():
    (train, labels), (test, truth) = clouds(400, 1, spread=0.2), clouds(400, 2, spread=0.2)
    shuffled = labels[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    shuffled_truth = truth[torch.randperm(400, generator=torch.Generator().manual_seed(1))]
    verdict = probe_linear(train, shuffled, test, LinearOptions(), seed=0)
    right = (verdict.predictions == shuffled_truth).double().mean()
    assert abs(float(right) - 0.25) < 4 * (0.25 * 0.75 / 400) ** 0.5


@pytest.mark.parametrize(("steps", "notes"), [(1, (NOT_CONVERGED,)), (200, ())])
def test_a_solver_that_stops_early_is_a_note_and_no_warning(monkeypatch, steps, notes):
    (train, labels), (test, _) = clouds(200, 1, spread=4), clouds(20, 2, spread=4)
    plain = LogisticRegression.fit
    monkeypatch.setattr(
        LogisticRegression, "fit", lambda model, x, y: plain(model.set_params(max_iter=steps), x, y)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verdict = probe_linear(train, labels, test, LinearOptions(c=(0.1, 1.0)), seed=0)
    assert tuple(note for note in verdict.notes if "sweep" not in note) == notes


def test_other_warnings_of_the_solver_are_passed_on():
    class Deprecated:
        def fit(self, rows, labels):
            warnings.warn("will go away", FutureWarning, stacklevel=1)

    with pytest.warns(FutureWarning, match="go away"):
        assert fit(Deprecated(), None, None)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_the_split_is_stratified_and_keyed(share):
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 2 + [3])
    held = stratified_split(labels, share, seed=5)
    counts = [int(held[labels == c].sum()) for c in range(4)]
    assert counts == [round(share * 40), round(share * 20), 1, 0]
    assert torch.equal(held, stratified_split(labels, share, seed=5))
    assert not torch.equal(held, stratified_split(labels, share, seed=6))


def test_single_images_per_class_are_refused():
    with pytest.raises(LaminaError, match="single"):
        probe_linear(noise(3, 4), torch.arange(3), noise(2, 4), LinearOptions(), seed=0)


@pytest.mark.parametrize("options", [{"c": ()}, {"c": (1.0, 0.1)}, {"c": (0.0,)}, {"validation_share": 1.0}])
def test_nonsense_is_refused(options):
    with pytest.raises(LaminaError):
        LinearOptions(**options)


@pytest.mark.parametrize("classes", [2, 4])
def test_logits_of_a_fitted_probe_name_the_classes_that_it_predicts(classes):
    train, labels = clouds(80, 1, classes=classes)
    test, _ = clouds(40, 2, classes=classes)
    probe = fit_linear(
        train, 2 * labels + 1, LinearOptions(c=(1.0, 10.0)), seed=0
    )  # of 9 classes, every other
    logits = probe.logits(test, 9)
    assert torch.equal(logits.argmax(1), probe.predict(test))
    assert torch.isinf(logits[:, 0]).all()
    assert torch.isfinite(logits[:, 1]).all()


def test_single_images_take_a_given_c_and_no_choice():
    train, labels = torch.eye(4), torch.arange(4)
    assert fit_linear(train, labels, LinearOptions(c=(10.0,)), seed=0).predict(train).tolist() == [0, 1, 2, 3]
    for options in (LinearOptions(), LinearOptions(c=(10.0,))):
        with pytest.raises(LaminaError, match="single training image"):
            probe_linear(train, labels, train, options, seed=0)
