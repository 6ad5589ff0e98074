"""How long a step of a run takes, measured on steps of a copy that is thrown away."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from lamina.train.clock import Clock
from lamina.train.distributed import Ranks, from_main
from lamina.train.loop import Loader, step
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions, plan_run
from lamina.train.precision import tf32
from lamina.train.sharding import views_expected
from lamina.train.signals import StopRequest
from lamina.train.trainer import Trainer

FEWEST, MOST = 3, 200
"""How many steps are measured at least and at most, whatever time they take."""


def seconds_per_step(
    task: nn.Module,
    loader: Loader,
    optim: OptimOptions,
    options: TrainOptions,
    ranks: Ranks,
    *,
    seconds: float,
    ahead: int = 0,
) -> float:
    """Mean seconds of a step, batches included, over about so many seconds; every rank calls this.

    The task is trained meanwhile: give a copy. No file is written. The first step, which is slow, and those
    whose batches are prepared `ahead` of it are not counted, as far as they leave half of the time.
    """
    request = StopRequest()  # no signal is noted here: an interrupt ends the measurement, as nothing is lost
    trainer = Trainer(task, plan_run(options, loader.n_samples), optim, options, Path(), ranks, request)
    trainer.clock = Clock(0.0)
    began = started = time.perf_counter()
    counted = 0
    with tf32(ranks.device, options.tf32), views_expected(options):
        for number, batch in enumerate(loader.batches(0, MOST + ahead + 1)):
            if number == 0:  # now that the workers run
                began = started = time.perf_counter()
            step(trainer, batch.to(ranks.device))
            trainer.meter.means()  # waits for the device
            now, counted = time.perf_counter(), counted + 1
            if number < 1 + ahead and now - began < seconds / 2:
                started, counted = now, 0
            if from_main(int(counted >= FEWEST and now - began >= seconds), ranks):
                break
    return (time.perf_counter() - started) / max(counted, 1)
