"""A training: its parts, the state that changes from step to step, and how it starts, saves and ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from lamina.core.batch import Batch, Fault
from lamina.core.errors import LaminaError
from lamina.train import checkpoint
from lamina.train.buffers import BufferKeeper
from lamina.train.callbacks import Callback
from lamina.train.checking import training_warnings
from lamina.train.checkpoint import CHECKPOINTS
from lamina.train.clock import Clock
from lamina.train.distributed import Ranks, from_main, gather_json, on_main
from lamina.train.divergence import most_nonfinite, never_stepped
from lamina.train.first_loss import FirstLoss
from lamina.train.gradients import Gradients, after_step_of
from lamina.train.layout import Layout
from lamina.train.optim import build_optimizer, load_optimizer_tensors, optimizer_tensors
from lamina.train.optim_options import OptimOptions
from lamina.train.options import Plan, TrainOptions
from lamina.train.precision import loss_scaler
from lamina.train.rescue import rescue
from lamina.train.resume import check_facts, find_start, restored_state, run_facts
from lamina.train.run_log import RunLog, load_callback_states
from lamina.train.saver import Saver
from lamina.train.schedule import learning_rate
from lamina.train.signals import StopRequest
from lamina.train.state import Outcome, Reason, TrainState
from lamina.train.step_sync import AsyncFlags, AverageMeter, RankFlags, StepEvents

T = TypeVar("T")


class Trainer:
    """The parts of one `fit`, built once, and what changes from step to step."""

    clock: Clock

    def __init__(
        self,
        task: nn.Module,
        plan: Plan,
        optim: OptimOptions,
        options: TrainOptions,
        folder: Path,
        ranks: Ranks,
        request: StopRequest,
    ) -> None:
        self.plan, self.optim, self.options, self.ranks, self.request = plan, optim, options, ranks, request
        self.folder, self.checkpoints = folder, folder / CHECKPOINTS
        self.share = ranks.share(options.batch_size)
        self.task = task.to(ranks.device).train()
        self.after_step: Callable[[int], None] = after_step_of(task)
        self.layout = Layout(self.task, ranks, optim, options)
        self.scaler = loss_scaler(ranks.device, options.precision)
        self.gradients = Gradients.of(
            self.task, self.scaler, ranks, options.precision, options.seed, options.compile
        )
        self.optimizer = build_optimizer(self.task, optim, fused=ranks.device.type in ("cuda", "cpu"))
        self.buffers = BufferKeeper(self.task)
        self.async_flags, self.meter = AsyncFlags(ranks.device), AverageMeter(ranks.device)
        self.first_loss, self.saver = FirstLoss(ranks.device), Saver(folder, options)
        self.state = TrainState(plan.total_steps)
        self.run_log: RunLog | None = None
        self.faults: list[Fault] = []
        self.most_nonfinite = most_nonfinite(options, plan.total_steps)
        self.stopping = self.saving = False
        self.stop_reason: str | None = None
        self.whole = True
        self.saved_step: int | None = None
        self.failed_to_save = self._stepped = False
        self._known_rows: int | None = None
        self._row: dict[str, Any] = {}

    # What a step asks for

    def learning_rate(self, step: int) -> float:
        """The rate of step `step`, before any parameter's own scale."""
        return learning_rate(
            step,
            total_steps=self.plan.total_steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            batch_size=self.plan.batch_size,
            options=self.optim,
        )

    def micro_batch_size(self, batch: Batch) -> int:
        """The size asked for, or the whole share; on CUDA halved before the first step until it fits."""
        if len(batch) != self.share:
            raise LaminaError(f"the loader gave a batch of {len(batch)} images instead of {self.share}")
        if self.options.micro_batch_size is not None:
            return min(self.options.micro_batch_size, self.share)
        if self.state.micro_batch_size is None:
            on_cuda = self.ranks.device.type == "cuda" and not self.layout.cut
            self.state.micro_batch_size = self.gradients.largest_micro_batch(batch) if on_cuda else self.share
            if self.state.micro_batch_size < self.share:
                self.say(
                    f"{self.state.micro_batch_size} of {self.share} images fit into the GPU's memory at once"
                )
        return min(self.state.micro_batch_size, self.share)

    def rank_flags(self, batch: Batch) -> RankFlags:
        """What this rank sends to the others: unreadable files, a signal to stop, time for a checkpoint. The
        failure of the one before counts as that, since all ranks meet in `save`, which raises it on each."""
        due = self.clock.save_due(self.options.checkpoint_every_seconds) or self.saver.failed
        return RankFlags(len(batch.faults), self.request.signal is not None, self.ranks.main and due)

    def apply_events(self, events: Sequence[StepEvents]) -> None:
        """Apply the stop, save and skip flags of finished steps, which are the same on all ranks."""
        for event in events:
            self.count(event)
            self.stopping |= event.stop
            self.saving |= event.save
            if event.nonfinite:
                count = f"{self.state.nonfinite} so far, at most {self.most_nonfinite}"
                self.say(f"step {event.step} skipped: its loss or gradient is not finite ({count})")
            if not event.skipped and (line := self.first_loss.announcement(event.step, event.high)):
                self.say(line)
            if event.faults:
                self._report_faults()

    def count(self, event: StepEvents) -> None:
        """Add the events of a step to the state, without communication between ranks."""
        self.state.faults += event.faults
        self.state.nonfinite += event.nonfinite
        self.state.skipped_in_a_row = self.state.skipped_in_a_row + 1 if event.skipped else 0
        if not (event.skipped or event.high):
            self.state.proven_step = event.step - 1

    @contextmanager
    def moving(self) -> Iterator[None]:
        """Weights and what goes with them move inside; where that fails, they are of no step."""
        self.whole = False
        yield
        self.whole = True

    def _report_faults(self) -> None:
        """Hand the unreadable files of all ranks to rank 0's callbacks, and their reason to stop to all."""
        gathered, self.faults = gather_json(self.faults, self.ranks), []
        faults = [Fault(*fault) for part in gathered for fault in part]
        reason = self._report(lambda run_log: run_log.faults(faults))
        self.stop_reason = gather_json(reason, self.ranks)[0] or self.stop_reason

    # Output: by rank 0, but every rank calls this, so that all of them end where it fails

    def _report(self, what: Callable[[RunLog], T]) -> T | None:
        """Do something with the run log of rank 0; raises on all ranks where it fails."""
        return on_main(self.ranks, lambda: what(self.run_log) if self.run_log else None)

    def say(self, line: str) -> None:
        """A line for train.log and the terminal."""
        self._report(lambda run_log: run_log.say(line))

    def say_remarks(self, batch: Batch) -> None:
        """What rank 0's own images give occasion to say; without the other ranks, as `show_step`."""
        if self.run_log and batch.remarks:
            self.run_log.remarks(batch.remarks)

    def show_step(self) -> None:
        """Move the progress bar, and tell callbacks of a checkpoint that is in place by now; at each step,
        without the other ranks."""
        if self.run_log:
            self.run_log.step(self.state.step)
            self.saver.follow()

    def report_first_step(self) -> None:
        """Let callbacks know, once, that a step was taken."""
        if not self._stepped:
            self._stepped = True
            self._report(lambda run_log: run_log.first_step())

    def show_row(self, row: dict[str, Any], batch: Batch) -> None:
        """Complete a row by the clock and the callbacks, and write it."""
        clock = self.clock.lap(self.plan.batch_size)
        with self.layout.whole() as task:
            written = self._report(lambda run_log: run_log.row(row, clock, batch, task))
        self._row = written or {**row, **clock}

    # Checkpoints

    def save_is_due(self) -> bool:
        """Whether a checkpoint is due, by the number of steps or by rank 0's clock."""
        every = self.options.checkpoint_every_steps
        return self.saving or (every is not None and self.state.step % every == 0)

    def save(self) -> None:
        """Take a checkpoint on rank 0, after the one before; raises on all ranks where either fails."""
        self.apply_events(self.async_flags.drain())
        self.saving, self.failed_to_save = False, True
        with self.layout.whole(optimizer_tensors(self.optimizer)):
            self._report(self.write)
        self.saved_step, self.failed_to_save = self.state.step, False
        self.clock.saved()

    def finish_saving(self) -> None:
        """Wait until the last checkpoint is in place; raises on all ranks where it could not be written."""
        self.failed_to_save = True
        self._report(lambda run_log: self.saver.finish())
        self.failed_to_save = False

    def write(self, run_log: RunLog) -> None:
        """The checkpoint of the current step and what callbacks keep beside it, without the other ranks."""
        self.state.seconds = self.clock.seconds
        useful = not self.diverged and not never_stepped(self.state)
        task, tensors = self.layout.task, self.layout.held(optimizer_tensors(self.optimizer))
        self.saver.save(self.state.step, task, tensors, self._content(run_log), run_log, useful=useful)

    def _content(self, run_log: RunLog) -> dict[str, Any]:
        """What beside tensors decides how the run goes on."""
        return {
            "train": asdict(self.state),
            "run": self._facts(),
            "most_nonfinite": self.most_nonfinite,
            "samples_consumed": self.state.step * self.plan.batch_size,
            "meter": self.meter.state_dict(),
            "first_loss": self.first_loss.saved(),
            "scaler": self.scaler.state_dict(),
            "callbacks": run_log.callback_states(),
            "metrics_rows": run_log.rows,
        }

    def _restore(self, path: Path, callbacks: Sequence[Callback], say: Callable[[str], None]) -> None:
        """Go on from what `write` saved."""
        model, optimizer, saved = checkpoint.read_verified(path)
        with checkpoint.understood(path):
            check_facts(saved["run"], self._facts(), say)
            checkpoint.load_model_tensors(self.task, model)
            load_optimizer_tensors(self.optimizer, optimizer)
            self.state = restored_state(saved["train"], path, self.plan.total_steps)
            self.saved_step, self._known_rows = self.state.step, saved.get("metrics_rows")
            self.meter.load_state_dict(saved["meter"])
            self.first_loss.restore(saved.get("first_loss"))
            if self.scaler.is_enabled() and saved["scaler"]:
                self.scaler.load_state_dict(saved["scaler"])
            on_main(self.ranks, lambda: load_callback_states(callbacks, saved["callbacks"], say))

    def _facts(self) -> dict[str, Any]:
        return run_facts(self.options, self.optim, self.plan)

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint of the current step is, or will be."""
        return self.checkpoints / f"step-{self.state.step}"

    # Beginning and end

    def start(self, callbacks: Sequence[Callback], resume: bool) -> None:
        """Find where to begin, restore what was there, open the files."""
        lines: list[str] = []
        path, rolled_back = find_start(
            self.checkpoints, resume, self.options, self._facts(), self.ranks, lines.append
        )
        if path is not None:
            self._restore(path, callbacks, lines.append)
        if rolled_back:
            self.state.nonfinite = 0  # a budget of its own, since what is trained is another thing now
        self.clock = Clock(self.state.seconds)
        verb = "going on at" if path else "starting at"
        lines.append(f"{verb} step {self.state.step} of {self.plan.total_steps}")
        lines += training_warnings(self.ranks, self.optim, self.options, self.plan)
        with self.layout.whole():
            on_main(self.ranks, lambda: self._open(callbacks, lines))

    def _open(self, callbacks: Sequence[Callback], lines: Sequence[str]) -> None:
        """The files, the first lines in them, and the callbacks' beginning."""
        board = self.options.tensorboard
        self.run_log = RunLog(self.folder, self.state, callbacks, board, self._known_rows)
        for line in lines:
            self.run_log.say(line)
        self.run_log.start(self.state)
        if self.saved_step is not None:
            self.run_log.resume(self.saved_step, self.checkpoint_path, self.layout.task)

    @property
    def diverged(self) -> bool:
        """Whether more steps were skipped than may be."""
        return self.state.nonfinite > self.most_nonfinite

    def reason_at_the_end(self) -> Reason:
        """Whether the last step left something: finite weights that were trained."""
        self.apply_events(self.async_flags.drain())
        useful = self.layout.finite() and not never_stepped(self.state)
        return "finished" if from_main(int(useful), self.ranks) else "nonfinite"

    def end(self, reason: Reason) -> Outcome:
        """Save the current step, say how it ended, let the callbacks finish."""
        if self.saved_step != self.state.step:
            self.save()
        self.finish_saving()
        if line := self.first_loss.warning(self.state.proven_step):
            self.say(line)
        state, why = self.state, self.stop_reason or ""
        outcome = Outcome(reason, state.step, state.total_steps, self.checkpoint_path, self._row, why)
        with self.layout.whole():
            self._report(lambda run_log: run_log.end(outcome))
        return outcome

    def fail(self, error: BaseException) -> None:
        """Save the last good step and let rank 0's callbacks know that an exception ends the run; no rank
        waits for another here, since others may be gone."""
        rescue(self, error)
        if self.run_log:
            self.run_log.fail(error)

    def close(self) -> None:
        """Close the files and the progress bar, once nothing is written any more."""
        self.saver.close()
        if self.run_log:
            self.run_log.close()
