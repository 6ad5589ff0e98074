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
from lamina.train.precision import check_scale, gradient_norm
from lamina.train.signals import Interrupted, StopRequest
from lamina.train.state import INTERRUPTED_EXIT_CODE, Outcome, Reason
from lamina.train.step_sync import agree
from lamina.train.trainer import Run


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
    with tolerant_output(), process_group(options.device) as ranks, StopRequest() as request:
        run = Run(task, plan_run(options, loader.n_samples), optim, options, Path(folder), ranks, request)
        try:
            run.start(callbacks, resume)
            return run.end(walk(run, loader))
        except BaseException as error:
            run.fail(error)
            raise
        finally:
            run.close()


def walk(run: Run, loader: Loader) -> Reason:
    """Take all the steps that are left; returns why it ended."""
    try:
        return take_steps(run, loader)
    except Interrupted:
        if run.ranks.world == 1:
            ended = run.state.step == run.state.total_steps
            return run.reason_at_the_end() if ended else "interrupted"
        # The other ranks are in a step that waits for this one: nothing can be agreed on with them.
        error = LaminaError("interrupted by a signal while waiting for data; go on with --resume")
        error.exit_code = INTERRUPTED_EXIT_CODE
        raise error from None


def take_steps(run: Run, loader: Loader) -> Reason:
    """Batch by batch until the end, or until something asks to stop."""
    state, options = run.state, run.options
    batches = iter(loader.batches(state.step, state.total_steps))
    for batch in run.clock.batches(batches, run.request.waiting):
        run.faults += batch.faults
        run.say_remarks(batch)
        batch = batch.to(run.ranks.device)
        step(run, batch)
        run.tell_first_step()
        if state.step % options.log_every_steps == 0 or state.step == state.total_steps:
            log(run, batch)
        if run.save_is_due():
            run.save()
        if run.objection:
            return "bad files"
        if run.diverged:
            return "nonfinite"
        if run.stopping and state.step < state.total_steps:
            return "interrupted"
    if state.step < state.total_steps:
        raise LaminaError(f"the loader ended at step {state.step} of {state.total_steps}")
    return run.reason_at_the_end()


def step(run: Run, batch: Batch) -> None:
    """One optimiser step on this rank's share of a global batch; on CUDA nothing in it waits."""
    state = run.state
    rate = run.learning_rate(state.step)
    set_learning_rate(run.optimizer, rate)

    run.buffers.keep()
    terms = run.gradients.backward(batch, state.step, run.micro_batch_size(batch))
    run.scaler.unscale_(run.optimizer)
    norm = gradient_norm(run.task, run.optim.clip_grad)

    verdict = agree(terms, norm, run.requests(batch), run.ranks, scaled=run.scaler.is_enabled())
    run.buffers.put_back(verdict.skip)
    with run.moving():
        step_unless(run.optimizer, verdict.skip)
        run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.lr_sum += rate
        run.after_step(state.step)
    run.meter.add((*terms, "grad_norm"), torch.cat([verdict.terms, norm.to(verdict.terms).view(1)]))
    high = run.first_loss.far_above(verdict.terms[0], verdict.skip)
    run.take_note(run.mailbox.post(state.step, torch.cat([verdict.flags, high.to(verdict.flags).view(1)])))
    run.show_step()


def log(run: Run, batch: Batch) -> None:
    """Write a row of metrics.jsonl: means over the steps since the last one. This waits for the device."""
    run.take_note(run.mailbox.empty())
    check_scale(run.scaler)
    state, means = run.state, run.meter.means()
    norm = means.pop("grad_norm")
    row = {
        "step": state.step,
        "epoch": run.plan.epoch(state.step),
        **means,
        "lr": run.learning_rate(state.step - 1),
        "lr_sum": state.lr_sum,
        "grad_norm": norm,
        "nonfinite": state.nonfinite,
        "faults": state.faults,
    }
    run.show_row(row, batch)
    run.meter.clear()
