"""The protocol of segmentation: train a head, or remember patches, then test once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from lamina.data.dense_loader import DenseLoader
from lamina.downstream.fitting import fit_protocol, prepare_folder
from lamina.downstream.score import Score, file_name
from lamina.downstream.segment.building import (
    Planned,
    build_encoder,
    build_segmenter,
    plan_segmentation,
    total_steps,
)
from lamina.downstream.segment.knn import KNNSegmenter, block_of, build_bank, choose_k
from lamina.downstream.segment.maps import SegmentData
from lamina.downstream.segment.miou import Quality, judge
from lamina.downstream.segment.picture import save_picture
from lamina.downstream.segment.recipe import HeadKind, SegmentRecipe
from lamina.downstream.segment.sliding import SaysOfWindows
from lamina.downstream.segment.testing import Progress, Tested, segment_images
from lamina.downstream.training import Going, keep, own_folder
from lamina.evaluate.results import Setting
from lamina.frozen import weights_sha256
from lamina.interop import Backbone
from lamina.options import to_mapping
from lamina.train import Ranks, is_main, on_main, process_group

PICTURE, SCORE = "segmentation.png", "score.json"


def evaluate_segment(
    model: str | Path | Backbone,
    data: str | Path | SegmentData,
    going: Going | None = None,
    *,
    recipe: SegmentRecipe | HeadKind | None = None,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> Score:
    """Semantic segmentation by the recipe: train on the training images, then test once, after the last step.

    The score is the data set's mIoU (see `miou.Quality`), beside each class's IoU, pixel accuracy and the
    mean of the images' own mIoU. Folder: settings, checkpoints, metrics, score.json, segmentation.png.

    Args:
        model: whatever `load_encoder` takes ("untrained:RUN" is a run's twin before training), or a backbone.
        data: images with a class for each pixel: a folder, `sample:doom`, or two opened parts.
        going: folder, seed, device.
        recipe: what is trained, and how; a head's name stands for its recipe for small images.
        encoder: timm name of the network, for weights files that do not say.
        progress: told how many test images are done.

    Raises:
        Unfinished: where the training was interrupted; it goes on with `resume`.
        LaminaError: one line on what is wrong with the model, the data, the recipe or the folder.
    """
    going, started = going or Going(), time.perf_counter()
    planned = placed(plan_segmentation(model, data, recipe, encoder), going)
    name = f"segment-{planned.recipe.head}"
    called = f"{name}-{file_name(planned.data.name)}-seed{going.seed}"
    out = going.out or own_folder(planned.backbone, model, called)
    with process_group(planned.recipe.train.device) as ranks:
        says, own = (
            _trained(planned, out, going, ranks) if planned.trains else _bank(planned, out, going, ranks)
        )
        tested = segment_images(
            says,
            planned.data.test,
            planned.recipe.window,
            planned.encoder.in_chans,
            planned.fill,
            ranks.device,
            planned.recipe.data,
            progress,
        )
    score = _score(name, planned, tested, judge(tested.counts), {**own, "folder": str(out)})
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


def _trained(
    planned: Planned, out: Path, going: Going, ranks: Ranks
) -> tuple[SaysOfWindows, dict[str, Setting]]:
    """The head, trained in `out`, perhaps with the encoder."""
    recipe = planned.recipe
    task = build_segmenter(planned, build_encoder(planned))
    if ranks.world > 1 and ranks.device.type == "cuda":
        task.head = nn.SyncBatchNorm.convert_sync_batchnorm(task.head)  # type: ignore[no-untyped-call]
    loader = _loader(planned, ranks)
    fit_protocol(task, loader, recipe.optim, recipe.train, out, _settings(planned), going)
    task.eval()
    told: dict[str, Setting] = {
        "batch": recipe.train.batch_size,
        "lr": recipe.optim.base_lr * recipe.train.batch_size / 256,
        "steps": total_steps(planned),
    }
    return task.logits, told


def _bank(
    planned: Planned, out: Path, going: Going, ranks: Ranks
) -> tuple[SaysOfWindows, dict[str, Setting]]:
    """Remembered patches, and the k that the training images chose."""
    on_main(ranks, lambda: prepare_folder(out, _settings(planned), going))
    options, n = planned.recipe.knn, len(planned.data.train.images)
    n = min(n, options.images or n)
    encoder = build_encoder(planned).to(ranks.device).eval().requires_grad_(False)
    loader = _loader(planned, Ranks(0, 1, ranks.device))
    batches = loader.batches(0, -(-n // planned.recipe.train.batch_size))
    bank = build_bank(encoder, batches, n, len(planned.data.classes), options, ranks.device)
    k, _ = choose_k(bank, options.k)
    told: dict[str, Setting] = {"k": k, "images": n, "patches": len(bank.features)}
    return KNNSegmenter(encoder, bank, k, block_of(encoder, options)).logits, told


def _loader(planned: Planned, ranks: Ranks) -> DenseLoader:
    recipe = planned.recipe
    trains = planned.trains
    return DenseLoader(
        planned.data.train,
        recipe.data if trains else replace(recipe.data, jitter=None),
        recipe.window.training() if trains else recipe.window.plain(),
        recipe.train.seed,
        recipe.train.batch_size,
        ranks.rank,
        ranks.world,
        in_chans=planned.encoder.in_chans,
        fill=planned.fill,
    )


def _settings(planned: Planned) -> dict[str, Any]:
    """All that the numbers depend on."""
    backbone, data = planned.backbone, planned.data
    assert backbone.origin is not None
    return {
        "protocol": "segment",
        "model": backbone.origin.name,
        "step": backbone.origin.step,
        "weights_sha256": weights_sha256(backbone.encoder.vit.state_dict()),
        "data": data.name,
        "classes": list(data.classes),
        "training_images": len(data.train.images),
        "recipe": to_mapping(planned.recipe),
        "network": to_mapping(planned.encoder),
    }


def _score(name: str, planned: Planned, tested: Tested, quality: Quality, own: dict[str, Setting]) -> Score:
    """What was found, with what a reader wants to know of how."""
    recipe, origin, classes = planned.recipe, planned.backbone.origin, planned.data.classes
    assert origin is not None
    absent = [label for label, iou in zip(classes, quality.iou, strict=True) if iou != iou]
    notes = [*planned.notes, *tested.notes]
    if absent:
        notes.append(f"{len(absent)} classes are neither in the test images nor predicted, and left out")
    found = {f"IoU {label}": iou for label, iou in zip(classes, quality.iou, strict=True) if iou == iou}
    settings: dict[str, Setting] = {
        "recipe": recipe.name,
        "window": f"{recipe.window.pixels[0]} x {recipe.window.pixels[1]} px",
        "stride": f"{recipe.window.steps[0]} x {recipe.window.steps[1]} px",
        **own,
    }
    return Score(
        protocol=name,
        model=origin.name,
        step=origin.step,
        data=planned.data.name,
        metric="mIoU",
        value=quality.miou,
        interval=quality.interval,
        n_train=len(planned.data.train.images),
        n_test=len(tested.counts),
        seed=recipe.train.seed,
        settings=settings,
        more={
            **found,
            "pixel_accuracy": quality.pixel_accuracy,
            "mIoU_per_image": quality.miou_per_image,
        },
        notes=tuple(notes),
    )
