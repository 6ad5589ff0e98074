"""The protocol of detection: train Mask R-CNN on an encoder, then test once."""

from __future__ import annotations

import math
from pathlib import Path

from lamina.encoder.options import EncoderOptions
from lamina.evaluate.dense.evaluate import evaluate_dense
from lamina.evaluate.dense.images import DenseImages
from lamina.evaluate.detect.build import DetectPlan, build_detector, plan_detection
from lamina.evaluate.detect.coco_metrics import GROUPS, AveragePrecision, CocoEvaluation
from lamina.evaluate.detect.data import DetectData
from lamina.evaluate.detect.inference import ShownImage, detect_images
from lamina.evaluate.detect.plot import draw
from lamina.evaluate.detect.recipes import DetectRecipe, recipe_from
from lamina.evaluate.protocol import ProtocolOptions, RunOptions
from lamina.evaluate.score import Score
from lamina.features.options import ComputeOptions, Progress
from lamina.interop.backbone import Backbone
from lamina.train.distributed import Ranks


def evaluate_detect(
    model: str | Path | Backbone,
    data: str | Path | DetectData,
    run_options: RunOptions | None = None,
    *,
    recipe: DetectRecipe | None = None,
    encoder: str | EncoderOptions | None = None,
    progress: Progress | None = None,
) -> Score:
    """Detection and instance segmentation by the recipe: train on the training images, then test once, after
    the last step.

    The score is COCO's mean average precision of boxes; beside it those of masks, at single thresholds, by
    size and for each class. Folder: settings, checkpoints, metrics, score.json, detections.png.

    Args:
        model: whatever `load_encoder` takes ("untrained:RUN" is a run's twin before training), or a backbone.
        data: images with objects: a COCO-like folder, `sample:doom`, or two opened parts.
        run_options: folder, seed, device.
        recipe: what is trained, and how; by default the one for small images.
        encoder: timm name or options of the network, for weights files that do not say.
        progress: told how many test images are done.

    Raises:
        Unfinished: where the training was interrupted; it goes on with `resume`.
        LaminaError: one line on what is wrong with the model, the data, the recipe or the folder.
    """
    planned = plan_detection(model, data, recipe, encoder)
    run_options = run_options or RunOptions()
    return evaluate_dense(
        planned, "detect", model, run_options, progress, _train_and_test, draw, "detections.png"
    )


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_detect` as a row of `lamina.evaluate.catalog`."""
    recipe = recipe_from(options.protocol, options.recipe)
    return (evaluate_detect(model, data, run_options, recipe=recipe, encoder=options.encoder),)


def _train_and_test(
    planned: DetectPlan, out: Path, run_options: RunOptions, ranks: Ranks, images: DenseImages
) -> tuple[Score, tuple[ShownImage, ...]]:
    detector, window = build_detector(planned), planned.recipe.window
    loader = planned.loader(planned.reading, window.training(), ranks, window.least_px)
    planned.fit(detector, loader, "detect", out, run_options)
    tested = detect_images(detector, images, window, planned.fill, ranks.device)
    return _score(planned, tested.coco, out, images.notes), tested.shown


def _score(planned: DetectPlan, coco: CocoEvaluation, out: Path, notes: tuple[str, ...]) -> Score:
    """The score of the test, with the settings that its readers have to know."""
    boxes, reach = coco.precision("bbox"), planned.recipe.attention.window
    more = numbers_by_name("bbox", boxes, planned.data.classes)
    if coco.masks:
        more |= numbers_by_name("segm", coco.precision("segm"), planned.data.classes)
    interval = coco.interval("bbox", boxes.mean)
    if interval is None:
        notes = (*notes, f"no interval is known of {len(coco)} test images; it takes {2 * GROUPS}")
    attention = "global" if reach is None else f"within {reach} x {reach} patches"
    return planned.score(
        "detect",
        "bbox_mAP",
        boxes.mean,
        interval,
        n_test=len(coco),
        settings={"attention": attention, **planned.schedule, "folder": str(out)},
        more={name: value for name, value in more.items() if name != "bbox_mAP"},
        notes=notes,
    )


def numbers_by_name(kind: str, found: AveragePrecision, classes: tuple[str, ...]) -> dict[str, float]:
    """The numbers under the names that COCO's have in papers; those of which there is no object are left
    out."""
    numbers = {
        "mAP": found.mean,
        "AP50": found.at50,
        "AP75": found.at75,
        "AP_small": found.small,
        "AP_medium": found.medium,
        "AP_large": found.large,
        "recall": found.recall,
    }
    each = {f"{kind}_{name}": value for name, value in numbers.items()}
    if kind == "bbox":
        each |= {f"AP50 {name}": ap for name, ap in zip(classes, found.of_class_at50, strict=True)}
    return {name: value for name, value in each.items() if not math.isnan(value)}
