"""mIoU against torchmetrics, its interval against another way to it, and what it is not."""

import math

import pytest
import torch

from lamina.core.errors import LaminaError
from lamina.data.dense.sources import IGNORE
from lamina.evaluate.segment.miou import (
    bootstrap_interval,
    count_image,
    intersection_over_union,
    mean_iou,
    segmentation_metrics,
)

torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra: dense)")
segmentation = pytest.importorskip(
    "torchmetrics.segmentation", reason="torchmetrics is not installed (extra: dense)"
)
K = 6


def predictions(n=7, size=(20, 24), seed=0, ignored=True, classes=K, absent=()):
    """Truth of some images, each with a few classes of its own, and predictions that are right in part."""
    generator = torch.Generator().manual_seed(seed)
    there = [k for k in range(classes) if k not in absent]
    own = torch.tensor([[there[(i + j) % len(there)] for j in (0, 0, 0, 1, 2)] for i in range(n)])
    truth = own.gather(1, torch.randint(0, 5, (n, size[0] * size[1]), generator=generator)).view(n, *size)
    guess = own.gather(1, torch.randint(0, 5, (n, size[0] * size[1]), generator=generator)).view(n, *size)
    predicted = torch.where(torch.rand(n, *size, generator=generator) < 0.6, truth, guess)
    if ignored:
        truth[torch.rand(n, *size, generator=generator) < 0.1] = IGNORE
    return predicted, truth


def counted(predicted, truth, classes=K):
    return torch.stack([count_image(p, t, classes) for p, t in zip(predicted, truth, strict=True)])


@pytest.mark.parametrize("absent", [(), (2,), (0, 5)])
@pytest.mark.parametrize("ignored", [False, True])
def test_torchmetrics_says_the_same(ignored, absent):
    """MulticlassJaccardIndex over all pixels; a class that is nowhere is in no mean."""
    predicted, truth = predictions(ignored=ignored, absent=absent)
    metric = torchmetrics.classification.MulticlassJaccardIndex
    counts = counted(predicted, truth)
    expected = metric(K, average="macro", ignore_index=IGNORE)(predicted, truth)
    assert float(mean_iou(counts.sum(0))) == pytest.approx(float(expected), abs=1e-6)
    each = intersection_over_union(counts.sum(0))
    theirs = metric(K, average="none", ignore_index=IGNORE)(predicted, truth)
    assert each.isnan().nonzero()[:, 0].tolist() == list(absent)
    torch.testing.assert_close(each.nan_to_num(0).float(), theirs, rtol=0, atol=1e-6)
    accuracy = torchmetrics.classification.MulticlassAccuracy(K, average="micro", ignore_index=IGNORE)
    assert segmentation_metrics(counts).pixel_accuracy == pytest.approx(
        float(accuracy(predicted, truth)), abs=1e-6
    )


def test_the_mean_over_images_is_another_number():
    """torchmetrics' MeanIoU is that mean; here it is many points away from the data set's."""
    predicted, truth = predictions(ignored=False)
    quality = segmentation_metrics(counted(predicted, truth))
    metric = segmentation.MeanIoU(K, per_class=False, input_format="index")
    per_image = [float(metric(p[None], t[None])) for p, t in zip(predicted, truth, strict=True)]
    assert quality.miou_per_image == pytest.approx(sum(per_image) / len(per_image), abs=1e-5)
    assert abs(quality.miou - quality.miou_per_image) > 0.03


def test_predicted_and_nowhere_true_is_zero():
    predicted, truth = torch.tensor([[0, 0, 1, 2]]), torch.tensor([[0, 0, 1, 1]])
    counts = counted(predicted[None], truth[None], 4)
    assert counts[0].tolist() == [[2, 1, 0, 0], [2, 1, 1, 0], [2, 2, 0, 0]]
    iou = segmentation_metrics(counts).iou
    assert iou[:3] == (1.0, 0.5, 0.0)
    assert math.isnan(iou[3])
    assert segmentation_metrics(counts).miou == pytest.approx(0.5)


def test_without_a_class_there_is_nothing_to_measure():
    nothing = torch.full((1, 2, 4), IGNORE)
    with pytest.raises(LaminaError, match="no pixel"):
        segmentation_metrics(counted(torch.zeros(1, 2, 4, dtype=torch.int64), nothing))
    predicted, truth = predictions(3)
    truth[1] = IGNORE  # an image of it is in no mean
    quality = segmentation_metrics(counted(predicted, truth))
    others = segmentation_metrics(counted(predicted[[0, 2]], truth[[0, 2]]))
    assert (quality.miou, quality.miou_per_image) == (others.miou, others.miou_per_image)


def test_the_interval_is_the_spread_over_images():
    """Half its width is 1.96 standard errors by the delete-one jackknife, another way to the same thing; it
    halves with four times the images, and a seed gives it again."""
    counts = counted(*predictions(160, (8, 8), seed=3))
    low, high = bootstrap_interval(counts, seed=1)
    n, total = len(counts), counts.sum(0)
    left_out = torch.stack([mean_iou(total - each) for each in counts])
    error = float(((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt())
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert low < float(mean_iou(total)) < high
    few_low, few_high = bootstrap_interval(counts[:40], seed=1)
    assert (few_high - few_low) / (high - low) == pytest.approx(2, rel=0.35)
    assert bootstrap_interval(counts, seed=1) == (low, high) != bootstrap_interval(counts, seed=2)


def test_an_interval_in_closed_form():
    """Images of one class that are right or wrong as a whole: the mIoU is half the share that is right (the
    other class is predicted and nowhere true), a binomial draw. Their order does not matter much."""
    n, right = 400, 120
    counts = torch.tensor([[[9, 0], [9, 0], [9, 0]]] * right + [[[0, 0], [0, 9], [9, 0]]] * (n - right))
    share = right / n
    half = 1.96 * (share * (1 - share) / n) ** 0.5
    for given in (counts, counts.flip(0)):
        low, high = bootstrap_interval(given)
        assert low == pytest.approx((share - half) / 2, abs=0.004)
        assert high == pytest.approx((share + half) / 2, abs=0.004)
