"""Average precision against pycocotools on random predictions, boxes and masks; masks over boxes as pixels."""

import math

import numpy as np
import pytest
import torch

from helpers.detection import KINDS, SIZE, guesses, toy_objects
from lamina.evaluate.detect.coco_metrics import GROUPS, CocoEvaluation
from lamina.evaluate.detect.detector import Detections
from lamina.evaluate.detect.paste_masks import paste
from lamina.evaluate.detect.protocol import numbers_by_name

STATS = ("mean", "at50", "at75", "small", "medium", "large")


def theirs(rows, kind: str, classes=KINDS):
    """pycocotools' twelve numbers and each class's mean, from dense masks of the whole image."""
    from pycocotools import mask as codec
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def run_lengths(mask):
        encoded = codec.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        return {**encoded, "counts": encoded["counts"].decode()}

    truth, found = [], []
    for image, (objects, guess, size) in enumerate(rows, 1):
        for k, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
            entry = {"image_id": image, "category_id": int(objects.labels[k]) + 1, "id": len(truth) + 1}
            entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": int(objects.masks[k].sum())}
            entry |= {"iscrowd": int(objects.crowd[k]), "segmentation": run_lengths(objects.masks[k])}
            truth.append(entry)
        for k, (x1, y1, x2, y2) in enumerate(guess.boxes.tolist()):
            entry = {"image_id": image, "category_id": int(guess.labels[k]) + 1}
            if kind == "bbox":
                entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            else:
                entry["segmentation"] = run_lengths(paste(guess.masks[k], guess.boxes[k], size))
            found.append({**entry, "score": float(guess.scores[k])})
    known = COCO()
    known.dataset = {
        "images": [{"id": i + 1, "height": size[0], "width": size[1]} for i, (_, _, size) in enumerate(rows)],
        "annotations": truth,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(classes)],
    }
    known.createIndex()
    judge = COCOeval(known, known.loadRes(found), kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    whole = judge.eval["precision"][..., 0, -1]
    return judge.stats, [float(whole[..., k][whole[..., k] > -1].mean()) for k in range(len(classes))]


def rows(n: int = 12, seed: int = 0, size=SIZE):
    source = toy_objects(n, seed, size)
    return [(each, guesses(each, i + 100 * seed, size), size) for i, each in enumerate(source.objects)]


def ledger_of(cases) -> CocoEvaluation:
    ledger = CocoEvaluation(KINDS, masks=True)
    for objects, found, size in cases:
        ledger.add(objects, found, size)
    return ledger


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize(("seed", "size"), [(0, SIZE), (1, (120, 150))])
def test_random_predictions_are_judged_as_by_pycocotools(kind, seed, size, capsys):
    cases = rows(12, seed, size)
    assert sum(int(objects.crowd.sum()) for objects, _, _ in cases) == 1
    stats, each = theirs(cases, kind)
    found = ledger_of(cases).precision(kind)
    assert 0.01 < found.mean < 0.9
    for name, expected in zip(STATS, stats[:6], strict=True):
        value = getattr(found, name)
        assert math.isnan(value) if expected == -1 else value == pytest.approx(expected, abs=1e-9), name
    assert found.recall == pytest.approx(stats[8], abs=1e-9)
    assert found.of_class == pytest.approx(each, abs=1e-9)
    assert np.nanmean(found.of_class_at50) == pytest.approx(found.at50, abs=1e-9)


def perfect(objects) -> Detections:
    masks = (
        torch.stack([torch.ones(28, 28)] * len(objects.labels))
        if len(objects.labels)
        else torch.zeros(0, 28, 28)
    )
    return Detections(objects.boxes, objects.labels, torch.full((len(objects.labels),), 0.9), masks)


def test_what_is_right_is_one_and_crowds_are_no_mistake():
    cases = [(objects, perfect(objects), SIZE) for objects, _, _ in rows()]
    found = ledger_of(cases).precision("bbox")
    assert (found.mean, found.at50, found.recall) == pytest.approx((1, 1, 1))
    assert math.isnan(found.large)
    objects = cases[1][0]
    assert objects.crowd.tolist() == [False, True]
    for label, value in ((int(objects.labels[1]), 1.0), (1 - int(objects.labels[1]), None)):
        # A second detection within the crowd, surer than all: of its class it counts nothing, of another one
        # it is a mistake.
        more = perfect(objects)
        more = Detections(
            torch.cat([more.boxes[1:], more.boxes[:1]]),
            torch.tensor([label, int(objects.labels[0])]),
            torch.tensor([0.99, 0.9]),
            more.masks,
        )
        changed = ledger_of([*cases[:1], (objects, more, SIZE), *cases[2:]]).precision("bbox")
        assert changed.mean == pytest.approx(value) if value else changed.mean < 1


def test_nothing_found_and_nothing_to_find():
    empty = guesses(rows()[0][0], 0)
    empty = Detections(empty.boxes[:0], empty.labels[:0], empty.scores[:0], empty.masks[:0])
    found = ledger_of([(objects, empty, SIZE) for objects, _, _ in rows()])
    assert found.precision("bbox").mean == 0
    assert found.precision("segm").mean == 0
    one = [(objects, guess, SIZE) for objects, guess, _ in rows() if not (objects.labels == 1).any()]
    precision = ledger_of(one).precision("bbox")
    assert math.isnan(precision.of_class[1])  # no such object: no part of the mean
    assert precision.mean == pytest.approx(precision.of_class[0])
    assert "AP50 green" not in numbers_by_name("bbox", precision, KINDS)
    assert {"bbox_mAP", "bbox_AP50", "bbox_AP75", "AP50 red"} <= set(
        numbers_by_name("bbox", precision, KINDS)
    )


def test_the_interval_holds_what_other_images_give():
    """Of six draws of images from the same scenes, the interval of nearly each holds the mean of all, and is
    about as wide as they differ: 2 x 2.09 standard errors."""
    known = [ledger_of(rows(50, seed)) for seed in range(6)]
    values = [each.precision("bbox").mean for each in known]
    intervals = [each.interval("bbox", value) for each, value in zip(known, values, strict=True)]
    truth = float(np.mean(values))
    assert sum(low <= truth <= high for low, high in intervals) >= 5
    widths = [high - low for low, high in intervals]
    assert 2 < float(np.mean(widths)) / float(np.std(values, ddof=1)) < 9
    # On the logit scale both ends are as far from the value, and none leaves 0 to 1, however near it is.
    for value in (values[0], 0.04, 0.97):
        ends = np.array(known[0].interval("bbox", value))
        assert 0 < ends[0] < value < ends[1] < 1
        logits = np.log(ends / (1 - ends))
        assert logits.mean() == pytest.approx(np.log(value / (1 - value)))
    few = ledger_of(rows(2 * GROUPS - 1))
    assert few.interval("bbox", 0.5) is None


def test_some_images_by_themselves():
    cases = rows(10)
    part = ledger_of([cases[i] for i in (2, 5, 7)]).precision("bbox")
    assert ledger_of(cases).precision("bbox", (7, 2, 5)).mean == pytest.approx(part.mean, abs=1e-12)


def test_a_mask_covers_the_pixels_whose_middles_it_covers():
    box = torch.tensor([2.0, 3.0, 7.0, 6.0])
    found = paste(torch.ones(28, 28), box, (10, 12))
    expected = torch.zeros(10, 12, dtype=torch.bool)
    expected[3:6, 2:7] = True
    assert torch.equal(found, expected)
    left = torch.cat([torch.ones(28, 14), torch.zeros(28, 14)], dim=1)
    assert torch.equal(paste(left, torch.tensor([0.0, 0.0, 8.0, 4.0]), (4, 8)).any(0), torch.arange(8) < 4)
    outside = paste(torch.ones(28, 28), torch.tensor([-3.0, -3.0, 2.0, 30.0]), (10, 12))
    assert outside[:, :2].all()
    assert not outside[:, 2:].any()
    for nothing in ([12.0, 0.0, 14.0, 4.0], [3.0, 3.0, 3.0, 8.0]):
        assert not paste(torch.ones(28, 28), torch.tensor(nothing), (10, 12)).any()


def test_a_mask_that_was_pooled_comes_back():
    """An ellipse of 40 x 30 px, cut into 28 x 28 cells and pasted, is itself but for its edge."""
    y, x = torch.arange(64) + 0.5, torch.arange(64) + 0.5
    ellipse = ((y[:, None] - 30) / 20) ** 2 + ((x - 33) / 15) ** 2 <= 1
    cells = torch.linspace(0.5 / 28, 1 - 0.5 / 28, 28)
    rows_, columns = (10 + cells * 40).long(), (18 + cells * 30).long()
    mask = ellipse[rows_][:, columns].float()
    found = paste(mask, torch.tensor([18.0, 10.0, 48.0, 50.0]), (64, 64))
    both, either = (found & ellipse).sum(), (found | ellipse).sum()
    assert both / either > 0.93


def test_a_box_without_masks_is_judged_by_boxes():
    objects, guess, size = rows()[1]
    ledger = CocoEvaluation(KINDS, masks=False)
    ledger.add(objects, guess._replace(masks=None), size)
    whole = CocoEvaluation(KINDS, masks=True)
    whole.add(objects, guess, size)
    alone, beside = (
        numbers_by_name("bbox", ledger.precision("bbox"), KINDS),
        numbers_by_name("bbox", whole.precision("bbox"), KINDS),
    )
    assert alone == beside
