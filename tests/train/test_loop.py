"""What a step computes, what a run writes, and what it refuses."""

from __future__ import annotations

import functools
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers import training
from helpers.training import OPTIM, Counting, ToyLoader, ToyTask, rows, train
from lamina.core.batch import Batch, Fault
from lamina.core.errors import LaminaError
from lamina.train import clock
from lamina.train.callbacks import Callback
from lamina.train.checkpoint import read
from lamina.train.distributed import Ranks, choose_device
from lamina.train.gradients import Gradients
from lamina.train.log_files import LogFiles
from lamina.train.loop import fit
from lamina.train.options import TrainOptions
from lamina.train.precision import loss_scaler, precision_warning, tf32, tf32_warning
from lamina.train.progress import ProgressBar
from lamina.train.rows import CLOCK_FIELDS
from lamina.train.schedule import learning_rate

torch.set_num_threads(1)
HERE = Ranks(0, 1, torch.device("cpu"))


CLIP = 0.35


def gradients(task: nn.Module) -> Gradients:
    return Gradients.of(task, loss_scaler(HERE.device, "fp32"), HERE, "fp32", seed=0, compiled=False)


class Drawing(nn.Module):
    """Keeps what torch's generator gives in each forward, as drop path and dropout would see it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.drawn: list[float] = []

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        self.drawn.append(torch.rand((), dtype=torch.float64).item())
        return {"loss": self.weight * 1.0}


def drawn(seed: int, step: int, rank: int) -> tuple[float, ...]:
    """One number for each of the two micro-batches of a step on one of two ranks."""
    task, here = Drawing(), Ranks(rank, 2, torch.device("cpu"))
    batch = ToyLoader().batch(range(2))
    Gradients(task, task, loss_scaler(here.device, "fp32"), here, "fp32", seed).backward(batch, step, 1)
    return tuple(task.drawn)


def test_dropout_depends_on_seed_step_micro_batch_and_rank() -> None:
    cases = list(itertools.product(range(2), range(3), range(2)))
    numbers = [number for case in cases for number in drawn(*case)]
    assert len(set(numbers)) == len(numbers) == 24
    torch.rand(5)  # and on nothing else
    assert [number for case in cases for number in drawn(*case)] == numbers


@pytest.mark.parametrize("micro", [1, 2, 3, 5, 8])
def test_micro_batches_add_up_to_one_batch(micro: int) -> None:
    batch = ToyLoader().batch(range(8))
    task = ToyTask(dropout=0.0).double()
    batch = Batch(batch.images.double(), batch.keys)
    terms = gradients(task).backward(batch, 0, micro)
    ours = [p.grad.clone() for p in task.parameters() if p.grad is not None]
    task.zero_grad()
    whole = task(batch)
    whole["loss"].backward()
    theirs = [p.grad for p in task.parameters() if p.grad is not None]
    assert len(ours) == 4
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)
    assert {k: v.item() for k, v in terms.items()} == pytest.approx({k: v.item() for k, v in whole.items()})


def test_a_run_is_plain_adamw_with_clipping(tmp_path: Path) -> None:
    """The whole loop against a loop written out: AdamW, clipping, MAE's schedule, decay on matrices."""
    train(tmp_path, task=ToyTask(dropout=0.0), log_every_steps=1, optim=replace(OPTIM, clip_grad=CLIP))
    task = ToyTask(dropout=0.0)
    matrices = [p for p in task.net.parameters() if p.ndim > 1]
    vectors = [p for p in task.net.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    losses, norms = [], []
    for step, batch in enumerate(ToyLoader().batches(0, 13)):
        rate = learning_rate(step, total_steps=13, steps_per_epoch=6.5, batch_size=4, options=OPTIM)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(task.net.parameters(), CLIP).item())
        optimizer.step()
        losses.append(loss.item())
    assert min(norms) < CLIP < max(norms), "clipping has to change some steps and leave others"
    assert [row["loss"] for row in rows(tmp_path)] == pytest.approx(losses, rel=1e-6)
    assert [row["grad_norm"] for row in rows(tmp_path)] == pytest.approx(norms, rel=1e-5)
    saved = read(tmp_path / "checkpoints/step-13").model
    for name, value in task.net.state_dict().items():
        torch.testing.assert_close(saved[f"net.{name}"], value, rtol=1e-5, atol=1e-7)


def test_rows(tmp_path: Path) -> None:
    train(tmp_path)
    text = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert list(text[0]) == [
        "step", "epoch", "loss", "largest", "lr", "lr_sum", "grad_norm", "nonfinite", "faults", "total",
        "time", "seconds", "images_per_second", "data_wait", "sha256",
    ]  # fmt: skip
    assert [row["step"] for row in text] == [3, 6, 9, 12, 13]
    assert [row["epoch"] for row in text] == pytest.approx([s * 4 / 26 for s in (3, 6, 9, 12, 13)])
    rates = [
        learning_rate(s, total_steps=13, steps_per_epoch=6.5, batch_size=4, options=OPTIM) for s in range(13)
    ]
    assert text[-1]["lr_sum"] == pytest.approx(sum(rates))
    assert text[1]["lr"] == rates[5]
    assert text[-1]["total"] == pytest.approx(sum(row["loss"] for row in text))
    assert all(row["images_per_second"] > 0 and 0 <= row["data_wait"] <= 1 for row in text)
    assert set(text[0]) >= CLOCK_FIELDS


class SlowedTime:
    """A clock that stands still, but for what sleeps."""

    def __init__(self) -> None:
        self.now, self.time = 1e5, time.time

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_waiting_for_data_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes 3 seconds to come, and a step one: by a clock of its own, however busy the machine is."""
    slowed = SlowedTime()
    monkeypatch.setattr(clock, "time", slowed)
    monkeypatch.setattr(training, "time", slowed)

    class Slow(ToyTask):
        def forward(self, batch: Batch) -> dict[str, Tensor]:
            slowed.sleep(1.0)
            return super().forward(batch)

    outcome = train(tmp_path, task=Slow(), seconds=3.0, max_steps=4)
    assert outcome.row["data_wait"] == pytest.approx(3 / 4)
    assert outcome.row["images_per_second"] == pytest.approx(4 / 4.0)
    assert outcome.row["seconds"] == pytest.approx(4 * 4.0)


@pytest.mark.parametrize("beside", [False, True])
def test_callbacks_are_called_in_order(beside: bool, tmp_path: Path) -> None:
    """Where a checkpoint is written beside the training, the next row may come before it."""
    ours, faulty = Counting(), (2, 5)
    options = TrainOptions(
        max_steps=4,
        batch_size=4,
        log_every_steps=2,
        checkpoint_every_steps=3,
        checkpoint_async=beside,
        device="cpu",
    )
    outcome = fit(ToyTask(), ToyLoader(faulty=faulty), OPTIM, options, tmp_path, [ours])
    at_once = ["start", "log 2", "checkpoint 3", "log 4", "checkpoint 4", "finished"]
    late = ["start", "log 2", "log 4", "checkpoint 3", "checkpoint 4", "finished"]
    assert ours.calls == at_once or (beside and ours.calls == late)
    assert [f.reason for f in ours.faults] == ["cut short"] * 2
    assert outcome.row["faults"] == 2
    assert "cannot be read (cut short); another image" in (tmp_path / "train.log").read_text()


class Objecting(Callback):
    def on_faults(self, faults: Sequence[Fault]) -> str | None:
        return f"{len(faults)} is too many"


def test_an_objection_stops_the_run_after_all_have_seen_the_faults(tmp_path: Path) -> None:
    last = Counting()
    options = TrainOptions(max_steps=4, batch_size=4, log_every_steps=2, device="cpu")
    callbacks = [Objecting(), last]
    outcome = fit(ToyTask(), ToyLoader(faulty=(5,)), OPTIM, options, tmp_path, callbacks)
    assert (outcome.reason, outcome.step, outcome.exit_code) == ("bad files", 2, 2)
    assert last.calls == ["start", "log 2", "checkpoint 2", "bad files"]
    assert len(last.faults) == 1
    assert "too many bad files: 1 is too many; step 2 of 4" in outcome.sentence
    assert outcome.sentence in (tmp_path / "train.log").read_text()
    assert fit(ToyTask(), ToyLoader(), OPTIM, options, tmp_path, callbacks, resume=True).step == 4


def test_callbacks_know_of_a_failure_and_cannot_hide_it(tmp_path: Path) -> None:
    class Failing(ToyTask):
        def after_step(self, step: int) -> None:
            raise KeyError("a bug")

    class Worse(Callback):
        def on_failure(self, error: BaseException) -> None:
            raise RuntimeError("while failing")

    ours = Counting()
    options = TrainOptions(max_steps=4, batch_size=4, device="cpu")
    with pytest.raises(KeyError, match="a bug"):
        fit(Failing(), ToyLoader(), OPTIM, options, tmp_path, [Worse(), ours])
    assert ours.calls == ["start", "failed: 'a bug'"]
    assert "ended by KeyError: 'a bug'" in (tmp_path / "train.log").read_text()


def test_a_disk_that_refuses_what_callbacks_save_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match=r"step 13 could not be saved in .*No space left.*--resume"):
        train(tmp_path, fails_in="checkpoint")


def test_seeds_that_torch_refuses() -> None:
    for seed in (-1, 2**63):
        with pytest.raises(LaminaError, match="from 0 to 2"):
            TrainOptions(seed=seed)


@pytest.mark.parametrize(
    ("name", "local_rank", "local_world", "gives"),
    [
        ("cuda", 1, 2, "cuda:1"),
        ("auto", 0, 1, "cuda:0"),
        ("cuda:1", 0, 1, "cuda:1"),
        ("cuda:7", 0, 1, "torch sees 2 GPU"),
        ("cuda:1", 0, 2, "all 2 ranks of this machine on one GPU"),
        ("cuda", 2, 3, "3 ranks were started on this machine and torch sees 2"),
    ],
)
def test_each_rank_gets_a_gpu_that_is_there(
    name: str, local_rank: int, local_world: int, gives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    if gives.startswith("cuda"):
        assert str(choose_device(name, local_rank, local_world)) == gives
    else:
        with pytest.raises(LaminaError, match=gives):
            choose_device(name, local_rank, local_world)


def test_tf32_is_set_for_gpus_and_for_a_while_alone() -> None:
    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with tf32(torch.device("cuda")):
        assert now() == ("high", True)
        with tf32(torch.device("cuda"), allowed=False):
            assert now() == ("highest", False)
        assert now() == ("high", True)
    assert now() == before
    with pytest.raises(KeyError), tf32(torch.device("cuda"), allowed=not before[1]):
        raise KeyError
    assert now() == before
    with tf32(torch.device("cpu")):
        assert now() == before


def test_checkpoints_by_seconds(tmp_path: Path) -> None:
    train(tmp_path, seconds=0.02, checkpoint_every_seconds=0.03, keep_checkpoints=99)
    found = sorted(int(p.name.removeprefix("step-")) for p in (tmp_path / "checkpoints").iterdir())
    assert 4 <= len(found) <= 13
    assert found[-1] == 13


def test_memory_is_found_by_halving() -> None:
    class Hungry(ToyTask):
        most = 3

        def forward(self, batch: Batch) -> dict[str, Tensor]:
            self.steps += 1
            if len(batch) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(batch)

    task = Hungry()
    assert gradients(task).largest_micro_batch(ToyLoader().batch(range(16))) == 2
    assert task.steps == 0
    assert all(p.grad is None for p in task.parameters())
    task.most = 0
    with pytest.raises(LaminaError, match="not even one image"):
        gradients(task).largest_micro_batch(ToyLoader().batch(range(4)))


def test_a_broken_last_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 3}\n{"step": 6, "x": 1.50}\n{"step": 9}\n{"step": 1')
    LogFiles(tmp_path, step=8).close()
    assert path.read_text() == '{"step": 3}\n{"step": 6, "x": 1.50}\n'


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    files = LogFiles(tmp_path, step=0)
    files.row({"step": 1, "weights": [0.5, float("nan")], "x": float("inf")})
    files.close()
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert {name: row[name] for name in row if name != "sha256"} == {
        "step": 1,
        "weights": [0.5, None],
        "x": None,
    }


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed (extra: track)",
    )
    train(tmp_path, tensorboard=True)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [(e.step, e.value) for e in found.Scalars("loss")]
    assert logged == [(row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows(tmp_path)]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(LaminaError, match=r"pip install 'lamina\[track\]'"):
        train(tmp_path / "without", tensorboard=True)


def test_the_bar_and_the_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "starting at step 0 of 13"
    assert lines[1].startswith("step 3/13  loss 0.")
    assert lines[2].startswith("step 13/13  loss 0.")
    monkeypatch.setenv("COLUMNS", "160")
    bar = ProgressBar(0, 13)
    bar.step(4)
    bar.row(
        {"loss": None, "lr": 1e-3, "images_per_second": 9.0, "data_wait": 0.5, "nonfinite": 2, "faults": 1}
    )
    bar.say("[bold]as it is")
    bar.close()
    shown = capsys.readouterr().out
    assert (
        "no finite loss  lr 1.00e-03  9.0 images/s  data wait 50%  2 non-finite  1 replacements of bad files"
        in shown
    )
    assert "[bold]as it is" in shown


def test_bf16_on_a_cpu_without_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.train.precision.cpu_has_bf16", lambda: False)
    assert "slower" in (precision_warning(HERE.device, "bf16") or "")
    assert precision_warning(HERE.device, "fp32") is None
    assert precision_warning(torch.device("cuda"), "bf16") is None


def test_full_fp32_that_changes_nothing_is_told() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert tf32_warning(cpu, TrainOptions()) is None
    assert tf32_warning(gpu, TrainOptions(tf32=False)) is None
    assert "on the device cpu" in (tf32_warning(cpu, TrainOptions(tf32=False)) or "")
    assert "with precision bf16" in (tf32_warning(gpu, TrainOptions(tf32=False, precision="bf16")) or "")


class Odd(ToyTask):
    """Its forward returns what it is given."""

    def __init__(self, terms: object) -> None:
        super().__init__()
        self.terms = terms

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.terms  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        (torch.ones(()), 'with the key "loss"'),
        ({"objective": torch.ones(())}, 'with the key "loss"'),
        ({"loss": torch.ones(3)}, "not a 0-d tensor"),
        ({"loss": torch.ones(()), "lr": torch.ones(())}, "column of metrics.jsonl"),
    ],
)
def test_odd_terms_are_refused(terms: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match=words):
        train(tmp_path, task=Odd(terms))


def test_odd_tasks_loaders_and_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="has no after_step"):
        train(tmp_path, task=nn.Linear(2, 2))
    with pytest.raises(LaminaError, match="device called 'gpu'"):
        train(tmp_path, device="gpu")

    class Short(ToyLoader):
        def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
            return super().batches(first_step, 3)

    class Uneven(ToyLoader):
        def batch(self, positions: range) -> Batch:
            return super().batch(positions[:-1])

    options = TrainOptions(max_steps=5, batch_size=4, device="cpu")
    with pytest.raises(LaminaError, match="ended at step 3 of 5"):
        fit(ToyTask(), Short(), OPTIM, options, tmp_path / "short")
    with pytest.raises(LaminaError, match="3 images instead of 4"):
        fit(ToyTask(), Uneven(), OPTIM, options, tmp_path / "uneven")


@pytest.mark.slow
def test_a_compiled_forward_trains_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated as for the default backend, but run without generating code (a minute)."""
    train(tmp_path / "eager", task=ToyTask(dropout=0.0), max_steps=4, log_every_steps=1)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    train(tmp_path / "compiled", task=ToyTask(dropout=0.0), max_steps=4, log_every_steps=1, compile=True)
    ours, theirs = rows(tmp_path / "compiled"), rows(tmp_path / "eager")
    assert [r["loss"] for r in ours] == pytest.approx([r["loss"] for r in theirs], rel=1e-5)
    names = set(read(tmp_path / "eager/checkpoints/step-4").model)
    assert set(read(tmp_path / "compiled/checkpoints/step-4").model) == names
