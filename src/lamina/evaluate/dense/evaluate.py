"""The course of a dense protocol: train, test once, draw some test images, and write the score."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.figure import Figure

from lamina.evaluate.dense.images import DenseImages
from lamina.evaluate.dense.plan import DensePlan
from lamina.evaluate.dense.plot import save_picture
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import save_in_run
from lamina.evaluate.score import Score
from lamina.features.options import Progress
from lamina.interop.backbone import Backbone
from lamina.train.distributed import Ranks, is_main, process_group

SCORE = "score.json"

P = TypeVar("P", bound=DensePlan[Any, Any])
T = TypeVar("T")
TrainAndTest = Callable[[P, Path, RunOptions, Ranks, DenseImages], tuple[Score, Sequence[T]]]
"""Trains by the plan in the folder, tests on the images, and gives the score and the images to show."""


def evaluate_dense(
    plan: P,
    protocol: str,
    model: str | Path | Backbone,
    run_options: RunOptions,
    progress: Progress | None,
    train_and_test: TrainAndTest[P, T],
    draw: Callable[[Sequence[T], Sequence[str]], Figure],
    picture: str,
) -> Score:
    """The score of a dense protocol; its folder has settings, checkpoints, metrics, score.json and a picture.

    Args:
        plan: what is trained, on which images.
        protocol: its name, by which the folder is called.
        model: as it was given.
        run_options: folder, seed, device.
        progress: told how many test images are done.
        train_and_test: see `TrainAndTest`; called on every rank.
        draw: makes the figure of the images to show, with the names of the classes.
        picture: name of its file.
    """
    started, plan = time.perf_counter(), plan.placed(run_options)
    out = plan.folder(protocol, model, run_options)
    images = DenseImages(plan.data.test, plan.encoder.in_chans, plan.reading, progress)
    with process_group(plan.recipe.train.device) as ranks:
        score, shown = train_and_test(plan, out, run_options, ranks, images)
    score = replace(score, seconds=round(time.perf_counter() - started, 1))
    if is_main():
        save_picture(draw, shown, plan.data.classes, out / picture)
        score.save(out / SCORE)
        save_in_run(score, model)
    return score
