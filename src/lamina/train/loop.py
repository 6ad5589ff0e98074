"""The training loop: batch by batch, one step each; log, save and stop where it is due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.terminal import tolerant_output
from lamina.train.callbacks import Callback
from lamina.train.distributed import process_group
from lamina.train.optim import set_learning_rate, step_unless
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions, plan_run
from lamina.train.precision import check_scale, gradient_norm, tf32
from lamina.train.sharding import views_expected
from lamina.train.signals import Interrupted, StopRequest
from lamina.train.state import INTERRUPTED_EXIT_CODE, Outcome, Reason
from lamina.train.step_sync import reduce_step
from lamina.train.trainer import Trainer


class Loader(Protocol):
    """What gives `fit` its batches: this rank's share of global batch k, for k in [first_step, last_step)."""

    @property
    def n_samples(self) -> int: ...

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]: ...


def fit(
    task: nn.Module,
    loader: Loader,
    optim: OptimOptions,
    options: TrainOptions,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
) -> Outcome:
    """Train `task` in place and keep everything about the run in `folder`.

    `task.forward(batch)` returns {"loss": mean over the batch, ...other 0-d terms to log};
    `task.after_step(steps_done)` is called once per step, a skipped one included. A resume goes on from the
    newest good checkpoint (from the beginning where there is none yet) and ends with the weights, optimiser
    state and metrics of an uninterrupted run. SIGINT, SIGTERM, SIGHUP and what schedulers send before they
    end a job (`StopRequest`) save the current step and return an outcome with exit code 75, too many
    non-finite steps one with code 70 (as does a run that ends without finite weights, or without a single
    step taken), and a callback that objects to the faults one with code 2. Any error after the first step
    saves the last good step before it is raised, by rank 0 alone; a note of the error (PEP 678) says where.
    A run that diverged goes on with another learning rate, clipping or precision alone, from the newest
    checkpoint before. Seeds torch's global generators at each step. Raises `LaminaError` where options,
    folder or data make no run, and where a checkpoint cannot be written.
    """
    with (
        tolerant_output(),
        process_group(options.device) as ranks,
        tf32(ranks.device, options.tf32),
        views_expected(options),
        StopRequest() as request,
    ):
        plan = plan_run(options, loader.n_samples)
        trainer = Trainer(task, plan, optim, options, Path(folder), ranks, request)
        try:
            trainer.start(callbacks, resume)
            return trainer.end(train_steps(trainer, loader))
        except BaseException as error:
            trainer.fail(error)
            raise
        finally:
            trainer.close()


def train_steps(trainer: Trainer, loader: Loader) -> Reason:
    """Take all the steps that are left; returns why it ended."""
    try:
        return take_steps(trainer, loader)
    except Interrupted:
        if trainer.ranks.world == 1:
            ended = trainer.state.step == trainer.state.total_steps
            return trainer.reason_at_the_end() if ended else "interrupted"
        # The other ranks are in a step that waits for this one: nothing can be agreed on with them.
        error = LaminaError("interrupted by a signal while waiting for data; go on with --resume")
        error.exit_code = INTERRUPTED_EXIT_CODE
        raise error from None


def take_steps(trainer: Trainer, loader: Loader) -> Reason:
    """Batch by batch until the end, or until something asks to stop."""
    state, options = trainer.state, trainer.options
    batches = iter(loader.batches(state.step, state.total_steps))
    for batch in trainer.clock.batches(batches, trainer.request.waiting):
        trainer.faults += batch.faults
        trainer.say_remarks(batch)
        batch = batch.to(trainer.ranks.device)
        step(trainer, batch)
        trainer.report_first_step()
        if state.step % options.log_every_steps == 0 or state.step == state.total_steps:
            log(trainer, batch)
        if trainer.save_is_due():
            trainer.save()
        if trainer.stop_reason:
            return "bad files"
        if trainer.diverged:
            return "nonfinite"
        if trainer.stopping and state.step < state.total_steps:
            return "interrupted"
    if state.step < state.total_steps:
        raise LaminaError(f"the loader ended at step {state.step} of {state.total_steps}")
    return trainer.reason_at_the_end()


def step(trainer: Trainer, batch: Batch) -> None:
    """One optimiser step on this rank's share of a global batch; on CUDA nothing in it waits."""
    state = trainer.state
    rate = trainer.learning_rate(state.step)
    set_learning_rate(trainer.optimizer, rate)

    trainer.buffers.keep()
    terms = trainer.gradients.backward(batch, state.step, trainer.micro_batch_size(batch))
    trainer.scaler.unscale_(trainer.optimizer)
    norm = gradient_norm(trainer.task, trainer.optim.clip_grad)

    scaled = trainer.scaler.is_enabled()
    reduced = reduce_step(terms, norm, trainer.rank_flags(batch), trainer.ranks, scaled)
    trainer.buffers.put_back(reduced.skip)
    with trainer.moving():
        step_unless(trainer.optimizer, reduced.skip)
        trainer.scaler.update()
        trainer.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.lr_sum += rate
        trainer.after_step(state.step)
    trainer.meter.add((*terms, "grad_norm"), torch.cat([reduced.terms, norm.to(reduced.terms).view(1)]))
    high = trainer.first_loss.far_above(reduced.terms[0], reduced.skip)
    flags = torch.cat([reduced.flags, high.to(reduced.flags).view(1)])
    trainer.apply_events(trainer.async_flags.push(state.step, flags))  # on CUDA: those of the step before
    trainer.show_step()


def log(trainer: Trainer, batch: Batch) -> None:
    """Write a row of metrics.jsonl: means over the steps since the last one. This waits for the device."""
    trainer.apply_events(trainer.async_flags.drain())
    check_scale(trainer.scaler)
    state, means = trainer.state, trainer.meter.means()
    norm = means.pop("grad_norm")
    row = {
        "step": state.step,
        "epoch": trainer.plan.epoch(state.step),
        **means,
        "lr": trainer.learning_rate(state.step - 1),
        "lr_sum": state.lr_sum,
        "grad_norm": norm,
        "nonfinite": state.nonfinite,
        "faults": state.faults,
    }
    trainer.show_row(row, batch)
    trainer.meter.clear()
