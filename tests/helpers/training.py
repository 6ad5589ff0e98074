"""A small task with dropout and a keyed loader, for the tests of `lamina.train`; also run as a process."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lamina.core.batch import Batch, Fault
from lamina.core.rng import Purpose, permutation, sample_keys, uniform
from lamina.train.callbacks import Callback
from lamina.train.loop import fit
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions
from lamina.train.rows import CLOCK_FIELDS
from lamina.train.state import Outcome

N_SAMPLES = 26
OPTIM = OptimOptions(base_lr=1.0, warmup_epochs=0.5, clip_grad=0.5)
PIXELS = 3 * 2 * 2


@dataclass
class ToyLoader:
    """Position p of the stream is sample `permutation(seed, p // n, n)[p % n]` of epoch p // n.

    Images of `poisoned` positions are NaN, `faulty` ones are reported as replaced. A signal is raised in
    this process before the batch of step `signal_before`, an error before that of `error_before`, both on
    rank `signal_rank`; each batch takes `seconds` to come.
    """

    batch_size: int = 4
    rank: int = 0
    world: int = 1
    poisoned: tuple[int, ...] = ()
    faulty: tuple[int, ...] = ()
    signal_before: int | None = None
    signal_rank: int = 0
    error_before: int | None = None
    seconds: float = 0.0
    n_samples: int = N_SAMPLES

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        for step in range(first_step, last_step):
            if step == self.signal_before and self.rank == self.signal_rank:
                signal.raise_signal(signal.SIGTERM)
            if step == self.error_before and self.rank == self.signal_rank:
                raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
            time.sleep(self.seconds)
            share = self.batch_size // self.world
            first = step * self.batch_size + self.rank * share
            yield self.batch(range(first, first + share))

    def batch(self, positions: range) -> Batch:
        where = [divmod(p, self.n_samples) for p in positions]
        samples = [(epoch, int(permutation(0, epoch, self.n_samples)[i])) for epoch, i in where]
        keys = torch.cat([sample_keys(0, epoch, torch.tensor([index])) for epoch, index in samples])
        images = uniform(keys, PIXELS, Purpose.CROP).float().view(-1, 3, 2, 2)
        images[[p in self.poisoned for p in positions]] = math.nan
        faults = [Fault(*s, "cut short") for p, s in zip(positions, samples, strict=True) if p in self.faulty]
        return Batch(images, keys, faults=tuple(faults))


class ToyTask(nn.Module):
    """An autoencoder with dropout, a buffer that follows the steps, and a frozen part of its own."""

    def __init__(self, dropout: float = 0.1, width: int = 16, loss_scale: float = 1.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.loss_scale = loss_scale
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, PIXELS)
        )
        self.teacher = nn.Linear(PIXELS, PIXELS).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        error = self.net(batch.images).float() - batch.images.flatten(1)
        loss = error.square().mean() * self.loss_scale
        return {"loss": loss, "largest": error.detach().abs().amax(1).mean()}

    def after_step(self, step: int) -> None:
        assert isinstance(self.steps, Tensor)
        self.steps.fill_(step)

    def untracked_state(self) -> set[str]:
        return {"teacher."}


class Counting(Callback):
    """Adds a column that depends on all rows so far, keeps what it was told, and fails where asked to."""

    required = True

    def __init__(self, most_faults: int | None = None, fails_in: str = "") -> None:
        self.most_faults, self.fails_in = most_faults, fails_in
        self.total = 0.0
        self.calls: list[str] = []
        self.faults: list[Fault] = []

    def on_start(self, state: object) -> None:
        self.calls.append("start")
        self.fail("start")

    def on_log(self, step: int, row: dict, batch: Batch, task: nn.Module) -> dict:
        self.total += row["loss"] or 0.0
        torch.randn(3)
        self.calls.append(f"log {step}")
        self.fail("log")
        return {"total": self.total}

    def on_faults(self, faults: list[Fault]) -> str | None:
        self.faults += faults
        if self.most_faults is None or len(self.faults) <= self.most_faults:
            return None
        return f"{len(self.faults)} of {N_SAMPLES} files cannot be read"

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        assert (folder / "manifest.json").exists()
        self.calls.append(f"checkpoint {step}")
        self.fail("checkpoint")

    def on_end(self, outcome: Outcome) -> None:
        self.calls.append(outcome.reason)

    def on_failure(self, error: BaseException) -> None:
        self.calls.append(f"failed: {error}")

    def fail(self, where: str) -> None:
        if self.fails_in == where:
            raise OSError(errno.ENOSPC, "No space left on device", "encoder.safetensors")

    def state_dict(self) -> dict:
        return {"total": self.total}

    def load_state_dict(self, state: dict) -> None:
        self.total = state["total"]


def train(folder: Path, resume: bool = False, task: nn.Module | None = None, **settings: object) -> Outcome:
    """A toy run; settings that `ToyLoader` or `Counting` know go there, the others are `TrainOptions`.

    `optim` are its `OptimOptions`.
    """
    known, optim = ToyLoader.__dataclass_fields__, settings.pop("optim", OPTIM)
    counting = Counting(**{k: settings.pop(k) for k in ("most_faults", "fails_in") if k in settings})
    loader = ToyLoader(**{k: v for k, v in settings.items() if k in known})
    defaults = {"epochs": 2.0, "batch_size": loader.batch_size, "log_every_steps": 3, "device": "cpu"}
    options = TrainOptions(**{**defaults, **{k: v for k, v in settings.items() if k not in known}})
    return fit(task or ToyTask(), loader, optim, options, folder, [counting], resume)


def fingerprint(folder: Path, step: int) -> dict[str, object]:
    """Everything of a run that must not depend on interruptions: checkpoint, rows, and the encoder beside."""
    path = folder / "checkpoints" / f"step-{step}"
    state = json.loads((path / "state.json").read_text())
    state["train"].pop("seconds")
    files = ("model.safetensors", "optimizer.safetensors")
    digests = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in files}
    encoder = {file.name: content(file) for file in sorted((folder / "encoder").glob("*"))}
    return {"state": state, "metrics": rows(folder), "encoder": encoder, **digests}


def content(file: Path) -> object:
    """What a JSON or safetensors file says, whatever the order in which it says it."""
    if file.suffix != ".safetensors":
        return json.loads(file.read_text())
    with safe_open(file, "pt") as opened:
        return opened.metadata(), {n: opened.get_tensor(n).numpy().tobytes() for n in opened.keys()}  # noqa: SIM118


def check_resumes(whole: Path, last: int, go_on: Callable[[Path], object], at: Sequence[int]) -> None:
    """Go on from the checkpoint of each step of `at`, as a kill right after it would have left the run.

    `whole` is a run of `last` steps that was not interrupted, with all of those checkpoints. Later
    checkpoints and the encoder beside them are removed, later rows are there.
    """
    expected = fingerprint(whole, last)
    for step in at:
        copy = whole.with_name(f"{whole.name}-from-{step}")
        shutil.copytree(whole, copy)
        shutil.rmtree(copy / "encoder", ignore_errors=True)
        for path in (copy / "checkpoints").iterdir():
            if int(path.name.removeprefix("step-")) > step:
                shutil.rmtree(path)
        go_on(copy)
        assert fingerprint(copy, last) == expected, f"resumed at step {step}"


def rows(folder: Path) -> list[dict[str, object]]:
    """The rows of metrics.jsonl without the clock fields."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCK_FIELDS} for row in found]


def child(folder: Path, output: Path, environment: dict[str, str], asked: dict[str, Any]) -> None:
    """A toy run as a process of its own; ends with the outcome's code, its output goes to a file.

    The outcome's sentence, or the error, goes to a file for each rank.
    """
    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a script ignores it
    os.environ.update(environment)
    torch.set_num_threads(1)
    rank, world = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
    task = ToyTask(**asked.pop("task", {}))
    told = folder.with_name(f"{folder.name}-rank-{rank}.txt")
    try:
        outcome = train(folder, task=task, rank=rank, world=world, **asked)
    except Exception as error:
        told.write_text(f"{type(error).__name__}: {error}")
        raise
    told.write_text(outcome.sentence)
    sys.exit(outcome.exit_code)
