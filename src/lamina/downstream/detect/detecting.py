"""The protocol of detection: train Mask R-CNN on an encoder, then test once."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.data.dense_loader import DenseLoader
from lamina.downstream.detect.building import Planned, build_detector, plan_detection, total_steps
from lamina.downstream.detect.coco import GROUPS, Precision
from lamina.downstream.detect.objects import DetectData
from lamina.downstream.detect.picture import save_picture
from lamina.downstream.detect.recipe import DetectRecipe
from lamina.downstream.detect.testing import Progress, Tested, detect_images
from lamina.downstream.fitting import fit_protocol
from lamina.downstream.score import Score, file_name
from lamina.downstream.training import Going, keep, own_folder
from lamina.frozen import weights_sha256
from lamina.interop import Backbone
from lamina.options import to_mapping
from lamina.train import Ranks, is_main, process_group

PICTURE, SCORE = "detections.png", "score.json"


def evaluate_detect(
    model: str | Path | Backbone,
    data: str | Path | DetectData,
    going: Going | None = None,
    *,
    recipe: DetectRecipe | None = None,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> Score:
    """Detection and instance segmentation by the recipe: train on the training images, then test once, after
    the last step.

    The score is COCO's mean average precision of boxes; beside it those of masks, at single thresholds, by
    size and for each class. Folder: settings, checkpoints, metrics, score.json, detections.png.

    Args:
        model: whatever `load_encoder` takes ("untrained:RUN" is a run's twin before training), or a backbone.
        data: images with objects: a COCO-like folder, `sample:doom`, or two opened parts.
        going: folder, seed, device.
        recipe: what is trained, and how; by default the one for small images.
        encoder: timm name of the network, for weights files that do not say.
        progress: told how many test images are done.

    Raises:
        Unfinished: where the training was interrupted; it goes on with `resume`.
        LaminaError: one line on what is wrong with the model, the data, the recipe or the folder.
    """
    going, started = going or Going(), time.perf_counter()
    planned = placed(plan_detection(model, data, recipe, encoder), going)
    called = f"detect-{file_name(planned.data.name)}-seed{going.seed}"
    out = going.out or own_folder(planned.backbone, model, called)
    with process_group(planned.recipe.train.device) as ranks:
        tested = _tested(planned, out, going, ranks, progress)
        score = _score(planned, tested, out)
    score = replace(score, seconds=round(time.perf_counter() - started, 1))
    if is_main():
        save_picture(tested.shown, planned.data.classes, out / PICTURE)
        score.save(out / SCORE)
        keep(score, model)
    return score


def placed(planned: Planned, going: Going) -> Planned:
    """With the seed, the device and the workers that were asked for."""
    recipe = planned.recipe
    train = replace(recipe.train, seed=going.seed, device=going.device or recipe.train.device)
    workers = recipe.data.workers if going.workers is None else going.workers
    return replace(planned, recipe=replace(recipe, train=train, data=replace(recipe.data, workers=workers)))


def _tested(planned: Planned, out: Path, going: Going, ranks: Ranks, progress: Progress | None) -> Tested:
    """Train in `out`, and find the objects of the test images."""
    recipe = planned.recipe
    detector = build_detector(planned)
    loader = DenseLoader(
        planned.data.train,
        recipe.data,
        recipe.window.training(),
        recipe.train.seed,
        recipe.train.batch_size,
        ranks.rank,
        ranks.world,
        in_chans=planned.encoder.in_chans,
        fill=planned.fill,
        least_px=recipe.window.least_px,
    )
    fit_protocol(detector, loader, recipe.optim, recipe.train, out, _settings(planned), going)
    return detect_images(
        detector.eval(),
        planned.data.test,
        recipe.window,
        planned.encoder.in_chans,
        planned.fill,
        ranks.device,
        recipe.data,
        progress,
    )


def _settings(planned: Planned) -> dict[str, Any]:
    """All that the numbers depend on."""
    backbone, data = planned.backbone, planned.data
    assert backbone.origin is not None
    return {
        "protocol": "detect",
        "model": backbone.origin.name,
        "step": backbone.origin.step,
        "weights_sha256": weights_sha256(backbone.encoder.vit.state_dict()),
        "data": data.name,
        "classes": list(data.classes),
        "training_images": len(data.train.images),
        "recipe": to_mapping(planned.recipe),
        "network": to_mapping(planned.encoder),
    }


def _score(planned: Planned, tested: Tested, out: Path) -> Score:
    """What was found, with what a reader wants to know of how."""
    recipe, origin, ledger = planned.recipe, planned.backbone.origin, tested.ledger
    assert origin is not None
    boxes = ledger.precision("bbox")
    more = named("bbox", boxes, planned.data.classes)
    if ledger.masks:
        more |= named("segm", ledger.precision("segm"), planned.data.classes)
    interval = ledger.interval("bbox", boxes.mean)
    notes = [*planned.notes, *tested.notes]
    if interval is None:
        notes.append(f"no interval is known of {len(ledger)} test images; it takes {2 * GROUPS}")
    pixels, reach = recipe.window.pixels, recipe.attention.window
    return Score(
        protocol="detect",
        model=origin.name,
        step=origin.step,
        data=planned.data.name,
        metric="bbox_mAP",
        value=boxes.mean,
        interval=interval,
        n_train=len(planned.data.train.images),
        n_test=len(ledger),
        seed=recipe.train.seed,
        settings={
            "recipe": recipe.name,
            "window": f"{pixels[0]} x {pixels[1]} px",
            "attention": "global" if reach is None else f"within {reach} x {reach} patches",
            "batch": recipe.train.batch_size,
            "lr": recipe.optim.base_lr * recipe.train.batch_size / 256,
            "steps": total_steps(planned),
            "folder": str(out),
        },
        more={name: value for name, value in more.items() if name != "bbox_mAP"},
        notes=tuple(notes),
    )


def named(kind: str, found: Precision, classes: tuple[str, ...]) -> dict[str, float]:
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
