"""Scores over corruptions, against the published numbers of AlexNet and ResNet-50 and by hand."""

import pytest
from torchvision.models import AlexNet_Weights

from lamina.core.errors import LaminaError
from lamina.evaluate.robustness.corruptions.kinds import KINDS
from lamina.evaluate.robustness.corruptions.mce import (
    ALEXNET,
    ALEXNET_CLEAN,
    CorruptionScores,
    corruption_errors,
    mce,
    mean_error,
    relative_mce,
)


def spread(mean: float) -> list[float]:
    """Five errors of that mean."""
    return [mean - 0.02, mean - 0.01, mean, mean + 0.01, mean + 0.02]


# torchvision's ResNet-50 on ImageNet-C: top-1 accuracy and CE in percent, as others measured and computed them.
RESNET_50 = {
    "brightness": (68.02, 56.64),
    "contrast": (39.06, 71.43),
    "defocus_blur": (38.75, 74.71),
    "elastic_transform": (45.25, 84.75),
    "fog": (45.83, 66.11),
    "frost": (38.14, 74.84),
    "gaussian_noise": (29.29, 79.77),
    "glass_blur": (26.79, 88.61),
    "impulse_noise": (23.81, 82.58),
}
# CE of the same network in percent, rounded, beside an mCE of 76.7 (arXiv 1903.12261, table 1).
PAPER = dict(zip(KINDS, (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77), strict=True))


def test_alexnet_measures_one():
    alexnet = {kind: spread(error) for kind, error in ALEXNET.items()}
    assert tuple(ALEXNET) == KINDS
    assert mce(alexnet) == pytest.approx(1)
    assert relative_mce(alexnet, ALEXNET_CLEAN) == pytest.approx(1)
    measured = AlexNet_Weights.IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert 1 - measured / 100 == pytest.approx(ALEXNET_CLEAN)


def test_the_published_errors_of_resnet_50():
    errors = {kind: spread(1 - accuracy / 100) for kind, (accuracy, _) in RESNET_50.items()}
    found = corruption_errors(errors)
    for kind, (_, ce) in RESNET_50.items():
        assert 100 * found[kind] == pytest.approx(ce, abs=0.02)
        assert round(100 * found[kind]) == PAPER[kind]
    mean = mce({kind: spread(PAPER[kind] / 100 * ALEXNET[kind]) for kind in KINDS})
    assert 100 * mean == pytest.approx(76.7, abs=0.3)


def test_sums_come_before_the_division():
    errors = {"fog": [0.1, 0.2, 0.3, 0.4, 0.5], "snow": [0.9] * 5}
    assert mean_error(errors) == pytest.approx(0.6)
    want = {"fog": 1.5 / (5 * 0.819324), "snow": 4.5 / (5 * 0.866816)}
    assert corruption_errors(errors) == pytest.approx(want)
    assert mce(errors) == pytest.approx(sum(want.values()) / 2)
    fog = (1.5 - 5 * 0.1) / (5 * (0.819324 - 0.43478))
    snow = (4.5 - 5 * 0.1) / (5 * (0.866816 - 0.43478))
    assert relative_mce(errors, 0.1) == pytest.approx((fog + snow) / 2)


def test_names_say_what_was_measured():
    whole = {kind: [0.5] * 5 for kind in KINDS}
    part = {kind: each for kind, each in whole.items() if kind != "frost"}
    assert CorruptionScores(whole, generated=False).named() == {"mean error (published)": 0.5}
    scores = CorruptionScores(part, generated=True, clean=0.2, imagenet=True)
    assert scores.left_out == ("frost",)
    remark = "(generated, without frost)"
    assert list(scores.named()) == [f"{name} {remark}" for name in ("mean error", "mCE", "relative mCE")]
    assert scores.named()[f"mCE {remark}"] == mce(part) != mce(whole)
    assert scores.named()[f"relative mCE {remark}"] == relative_mce(part, 0.2)
    assert len(CorruptionScores(part, generated=True, imagenet=True).named()) == 2


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        ({}, "no errors"),
        ({"rain": [0.5] * 5}, "no corruption 'rain'"),
        ({"fog": [0.5] * 4}, "fog needs 5 errors"),
        ({"fog": [50.0] * 5}, "from 0 to 1"),
        ({"fog": [float("nan")] * 5}, "from 0 to 1"),
    ],
)
def test_what_is_no_error_is_refused(errors, message):
    for score in (mean_error, corruption_errors, mce, lambda e: relative_mce(e, 0.1)):
        with pytest.raises(LaminaError, match=message):
            score(errors)
    with pytest.raises(LaminaError, match=message):
        CorruptionScores(errors, generated=True)
    with pytest.raises(LaminaError, match="clean images"):
        relative_mce({"fog": [0.5] * 5}, 43.5)
