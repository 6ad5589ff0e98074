"""The protocol of segmentation: train a head, or store patches for kNN, then test once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jaxtyping import Int64
from torch import Tensor, nn

from lamina.core.text import counted
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.dense.evaluate import evaluate_dense
from lamina.evaluate.dense.images import DenseImages
from lamina.evaluate.dense.train import begin_evaluation, opened_evaluation
from lamina.evaluate.protocol import ProtocolOptions, RunOptions
from lamina.evaluate.score import Score
from lamina.evaluate.segment.build import SegmentPlan, build_encoder, build_segmenter, plan_segmentation
from lamina.evaluate.segment.data import SegmentData
from lamina.evaluate.segment.inference import ShownImage, segment_images
from lamina.evaluate.segment.knn import KNNSegmenter, block_of, build_bank, choose_k
from lamina.evaluate.segment.miou import segmentation_metrics
from lamina.evaluate.segment.plot import draw
from lamina.evaluate.segment.recipes import HeadKind, SegmentRecipe, recipe_from
from lamina.evaluate.segment.windows import WindowLogits
from lamina.features.options import ComputeOptions, Progress
from lamina.features.table import Setting
from lamina.interop.backbone import Backbone
from lamina.train.distributed import Ranks


def evaluate_segment(
    model: str | Path | Backbone,
    data: str | Path | SegmentData,
    run_options: RunOptions | None = None,
    *,
    recipe: SegmentRecipe | HeadKind | None = None,
    encoder: str | EncoderOptions | None = None,
    progress: Progress | None = None,
) -> Score:
    """Semantic segmentation by the recipe: train on the training images, then test once, after the last step.

    The score is the data set's mIoU (see `SegmentationMetrics`), beside each class's IoU, pixel accuracy and
    the mean of the images' own mIoU. Folder: settings, checkpoints, metrics, score.json, segmentation.png.

    Args:
        model: whatever `load_encoder` takes ("untrained:RUN" is a run's twin before training), or a backbone.
        data: images with a class for each pixel: a folder, `sample:doom`, or two opened parts.
        run_options: folder, seed, device.
        recipe: what is trained, and how; a head's name stands for its recipe for small images.
        encoder: timm name or options of the network, for weights files that do not say.
        progress: told how many test images are done.

    Raises:
        Unfinished: where the training was interrupted; it goes on with `resume`.
        LaminaError: one line on what is wrong with the model, the data, the recipe or the folder.
    """
    planned = plan_segmentation(model, data, recipe, encoder)
    run_options, name = run_options or RunOptions(), f"segment-{planned.recipe.head}"
    return evaluate_dense(
        planned, name, model, run_options, progress, _train_and_test, draw, "segmentation.png"
    )


def run(
    model: str, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """`evaluate_segment` as a row of `lamina.evaluate.catalog`."""
    recipe = recipe_from(options.protocol, options.recipe)
    return (evaluate_segment(model, data, run_options, recipe=recipe, encoder=options.encoder),)


def _train_and_test(
    planned: SegmentPlan, out: Path, run_options: RunOptions, ranks: Ranks, images: DenseImages
) -> tuple[Score, tuple[ShownImage, ...]]:
    learn = _trained if planned.recipe.trains else _bank
    predict, settings = learn(planned, out, run_options, ranks)
    tested = segment_images(predict, images, planned.recipe.window, planned.fill, ranks.device)
    return _score(planned, tested.counts, {**settings, "folder": str(out)}, images.notes), tested.shown


def _trained(
    planned: SegmentPlan, out: Path, run_options: RunOptions, ranks: Ranks
) -> tuple[WindowLogits, dict[str, Setting]]:
    """The head, trained in `out`, perhaps with the encoder."""
    task = build_segmenter(planned, build_encoder(planned))
    if ranks.world > 1 and ranks.device.type == "cuda":
        task.head = nn.SyncBatchNorm.convert_sync_batchnorm(task.head)  # type: ignore[no-untyped-call]
    loader = planned.loader(planned.reading, planned.recipe.window.training(), ranks)
    planned.fit(task, loader, "segment", out, run_options)
    return task.logits, planned.schedule


def _bank(
    planned: SegmentPlan, out: Path, run_options: RunOptions, ranks: Ranks
) -> tuple[WindowLogits, dict[str, Setting]]:
    """A kNN segmenter on stored patches, with the k that the training images choose."""
    with opened_evaluation(ranks, out, run_options) as opened:
        settings = planned.settings("segment")
        begin_evaluation(ranks, opened, out, settings, run_options, kind=type(planned.recipe))
        found = _store_patches(planned, ranks)
        if opened:
            opened.started()
    return found


def _store_patches(planned: SegmentPlan, ranks: Ranks) -> tuple[WindowLogits, dict[str, Setting]]:
    recipe, n = planned.recipe, len(planned.data.train.images)
    options = recipe.knn
    n = min(n, options.images or n)
    encoder = build_encoder(planned).to(ranks.device).eval().requires_grad_(False)
    alone = Ranks(0, 1, ranks.device)
    loader = planned.loader(replace(planned.reading, jitter=None), recipe.window.plain(), alone)
    batches = loader.batches(0, -(-n // recipe.train.batch_size))
    bank = build_bank(encoder, batches, n, len(planned.data.classes), options, ranks.device)
    k, _ = choose_k(bank, options.k)
    settings: dict[str, Setting] = {"k": k, "images": n, "patches": len(bank.features)}
    return KNNSegmenter(encoder, bank, k, block_of(encoder, options)).logits, settings


def _score(
    planned: SegmentPlan,
    counts: Int64[Tensor, "n 3 K"],
    settings: dict[str, Setting],
    notes: tuple[str, ...],
) -> Score:
    """The score of the test, with the settings that its readers have to know."""
    quality, classes, steps = segmentation_metrics(counts), planned.data.classes, planned.recipe.window.steps
    absent = [label for label, iou in zip(classes, quality.iou, strict=True) if iou != iou]
    if absent:
        left_out = counted(len(absent), "class", "classes")
        notes = (*notes, f"{left_out} left out: neither in the test images nor predicted")
    found = {f"IoU {label}": iou for label, iou in zip(classes, quality.iou, strict=True) if iou == iou}
    return planned.score(
        f"segment-{planned.recipe.head}",
        "mIoU",
        quality.miou,
        quality.interval,
        n_test=len(counts),
        settings={"stride": f"{steps[0]} x {steps[1]} px", **settings},
        more={**found, "pixel_accuracy": quality.pixel_accuracy, "mIoU_per_image": quality.miou_per_image},
        notes=notes,
    )
