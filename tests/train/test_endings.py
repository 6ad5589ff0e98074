"""However a run is ended, by an error, a signal or a loader that hangs: its last good step is saved."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.training import OPTIM, ToyLoader, ToyTask, fingerprint, train
from lamina.cli.entry import main
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.train import checkpoint, signals
from lamina.train.callbacks import Callback
from lamina.train.loop import fit
from lamina.train.options import TrainOptions
from lamina.train.state import Outcome

torch.set_num_threads(1)
OPTIONS = TrainOptions(epochs=2, batch_size=4, log_every_steps=3, device="cpu")


class Normed(ToyTask):
    """Its batch-norm takes what it sees of a batch before it is known whether the step counts; fails in its
    forward, after that, or in `after_step`, at one step."""

    def __init__(self, fails_at: int | None = None, where: str = "forward") -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(12)
        self.net[3] = nn.Dropout(0.1)
        self.fails_at, self.where = fails_at, where

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        images = self.norm(batch.images.flatten(1)).view_as(batch.images)
        if self.fails_at == int(self.steps) and self.where == "forward":
            raise RuntimeError("a bug")
        return super().forward(Batch(images, batch.keys))

    def after_step(self, step: int) -> None:
        if self.fails_at == step and self.where == "after_step":
            raise RuntimeError("a bug")
        super().after_step(step)


class Loader(ToyLoader):
    """Does something before the batch of one step."""

    def __init__(self, at: int, what: Callable[[], object], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.at, self.what = at, what

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        for step in range(first_step, last_step):
            if step == self.at:
                self.what()
            yield from super().batches(step, step + 1)


def fail(error: BaseException) -> Callable[[], None]:
    def what() -> None:
        raise error

    return what


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Uninterrupted runs of both tasks."""
    found = {}
    for task in (ToyTask(), Normed()):
        folder = tmp_path_factory.mktemp("whole")
        fit(task, ToyLoader(), OPTIM, OPTIONS, folder)
        found[type(task).__name__] = fingerprint(folder, 13)
    return found


ERRORS = {
    "share": OSError(107, "Transport endpoint is not connected", "/mnt/photos/1.jpg"),
    "worker": LaminaError("a data worker died (process 7, SIGKILL)"),
    "bug": KeyError("x"),
    "exit": SystemExit(3),
}


@pytest.mark.parametrize("name", ERRORS)
def test_any_error_of_the_loader_saves_the_last_good_step(
    name: str, whole: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    error = ERRORS[name]
    with pytest.raises(type(error)) as caught:
        fit(ToyTask(), Loader(5, fail(error)), OPTIM, OPTIONS, tmp_path)
    assert caught.value is error
    assert checkpoint.steps(tmp_path / "checkpoints") == [5]
    saved = f"step 5 of 13 is saved in {tmp_path / 'checkpoints/step-5'}; go on with --resume"
    assert error.__notes__[-1] == saved
    assert saved in (tmp_path / "train.log").read_text()
    fit(ToyTask(), ToyLoader(), OPTIM, OPTIONS, tmp_path, resume=True)
    assert fingerprint(tmp_path, 13) == whole["ToyTask"]


@pytest.mark.parametrize("step", [4, 6])
def test_a_step_that_fails_leaves_no_trace(
    step: int, whole: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Its forward has changed the buffers already. After 6 steps the interval of a row has just begun."""
    with pytest.raises(RuntimeError, match="a bug"):
        fit(Normed(fails_at=step), ToyLoader(), OPTIM, OPTIONS, tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints") == [step]
    fit(Normed(), ToyLoader(), OPTIM, OPTIONS, tmp_path, resume=True)
    assert fingerprint(tmp_path, 13) == whole["Normed"]


def test_a_step_that_moved_the_weights_only_in_part_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        fit(Normed(4, "after_step"), ToyLoader(), OPTIM, OPTIONS, tmp_path)
    assert caught.value.__notes__ == ["the step in which this happened was not done whole, and is not saved"]
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_an_error_before_the_first_step_and_one_of_saving_itself_save_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyError) as caught:
        fit(ToyTask(), Loader(0, fail(KeyError("x"))), OPTIM, OPTIONS, tmp_path / "a")
    assert not hasattr(caught.value, "__notes__")

    def refuse(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(LaminaError, match="No space left") as full:
        train(tmp_path / "b", checkpoint_every_steps=4)
    assert not hasattr(full.value, "__notes__")
    with pytest.raises(KeyError) as both:
        fit(ToyTask(), Loader(5, fail(KeyError("x"))), OPTIM, OPTIONS, tmp_path / "c")
    (note,) = both.value.__notes__
    assert note.startswith("step 5 of 13 could not be saved (the checkpoint of step 5 could not be written")


def test_a_command_says_where_the_last_step_is_saved(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = LaminaError("a data worker died")
    error.add_note("step 5 of 13 is saved in run")
    monkeypatch.setattr("lamina.cli.entry._run", lambda args: fail(error)())
    assert main(["pretrain"]) == 2
    assert capsys.readouterr().err == "lamina: a data worker died; step 5 of 13 is saved in run\n"


# Signals


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_what_schedulers_and_terminals_send_saves_the_step(
    name: str, whole: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    if before is signal.SIG_IGN:
        pytest.skip(f"whoever started these tests ignores {name}, as nohup does with SIGHUP")
    outcome = fit(ToyTask(), Loader(5, lambda: signal.raise_signal(number)), OPTIM, OPTIONS, tmp_path)
    assert (outcome.reason, outcome.step, outcome.exit_code) == ("interrupted", 6, 75)
    assert signal.getsignal(number) is before
    fit(ToyTask(), ToyLoader(), OPTIM, OPTIONS, tmp_path, resume=True)
    assert fingerprint(tmp_path, 13) == whole["ToyTask"]


def handled_as(number: signal.Signals, handler: object, folder: Path) -> Outcome:
    before = signal.signal(number, handler)  # type: ignore[arg-type]
    try:
        return fit(ToyTask(), Loader(5, lambda: signal.raise_signal(number)), OPTIM, OPTIONS, folder)
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """`nohup lamina pretrain ...` starts with SIGHUP ignored, and outlives its terminal."""
    assert handled_as(signal.SIGHUP, signal.SIG_IGN, tmp_path).reason == "finished"


def test_a_signal_that_the_program_uses_stays_the_programs(tmp_path: Path) -> None:
    got: list[int] = []
    outcome = handled_as(signal.SIGUSR1, lambda number, frame: got.append(number), tmp_path)
    assert outcome.reason == "finished"
    assert got == [signal.SIGUSR1]


def test_the_end_that_a_scheduler_warned_of_is_the_same_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second SIGTERM would end this process at once; the first one after SIGUSR1 does not."""
    monkeypatch.setattr(signals, "_SAME_REQUEST_SECONDS", 0.0)

    def warn() -> None:
        signal.raise_signal(signal.SIGUSR1)
        time.sleep(0.01)
        signal.raise_signal(signal.SIGTERM)

    outcome = fit(ToyTask(), Loader(5, warn), OPTIM, OPTIONS, tmp_path)
    assert (outcome.reason, outcome.step) == ("interrupted", 6)


@pytest.mark.parametrize("how", ["sleeps", "waits for a lock"])
def test_a_signal_ends_a_wait_for_data_that_hangs(
    how: str, whole: dict[str, dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "PATIENCE_SECONDS", 0.3)

    def hang() -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        if how == "sleeps":
            time.sleep(60)
        else:
            threading.Event().wait(60)

    begun = time.monotonic()
    outcome = fit(ToyTask(), Loader(5, hang), OPTIM, OPTIONS, tmp_path)
    assert time.monotonic() - begun < 20
    assert (outcome.reason, outcome.step, outcome.exit_code) == ("interrupted", 5, 75)
    fit(ToyTask(), ToyLoader(), OPTIM, OPTIONS, tmp_path, resume=True)
    assert fingerprint(tmp_path, 13) == whole["ToyTask"]


def test_a_worker_that_ends_by_the_same_signal_is_no_error(
    whole: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    """Schedulers signal all processes of a job."""

    def both() -> None:
        signal.raise_signal(signal.SIGTERM)
        raise LaminaError("a data worker died (process 7, SIGTERM)")

    outcome = fit(ToyTask(), Loader(5, both), OPTIM, OPTIONS, tmp_path)
    assert (outcome.reason, outcome.step, outcome.exit_code) == ("interrupted", 5, 75)
    fit(ToyTask(), ToyLoader(), OPTIM, OPTIONS, tmp_path, resume=True)
    assert fingerprint(tmp_path, 13) == whole["ToyTask"]


def test_a_reader_that_takes_errors_for_bad_files_does_not_swallow_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "PATIENCE_SECONDS", 0.1)

    def hang() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            time.sleep(60)
        except Exception:
            pytest.fail("swallowed")

    assert fit(ToyTask(), Loader(5, hang), OPTIM, OPTIONS, tmp_path).step == 5


# Buffers of steps that are skipped


@pytest.mark.parametrize("micro", [None, 2])
def test_a_skipped_step_leaves_batch_norms_as_they_were(micro: int | None, tmp_path: Path) -> None:
    """Sample 9 of the stream, in step 3, is NaN."""
    options = TrainOptions(
        max_steps=4,
        batch_size=4,
        micro_batch_size=micro,
        checkpoint_every_steps=1,
        keep_checkpoints=9,
        device="cpu",
    )
    fit(Normed(), ToyLoader(poisoned=(9,)), OPTIM, options, tmp_path)
    two, three, four = (checkpoint.read(tmp_path / f"checkpoints/step-{k}").model for k in (2, 3, 4))
    names = [name for name in two if name.startswith("norm.")]
    assert len(names) == 5
    assert all(torch.equal(two[name], three[name]) for name in names)
    assert not torch.equal(three["norm.running_mean"], four["norm.running_mean"])
    assert all(torch.isfinite(four[name]).all() for name in names)
    # And the steps that count move them as torch does: 0.9 of the old mean and 0.1 of the batch's, each time.
    if micro is None:
        mean = torch.zeros(12)
        for step in (0, 1, 3):
            batch = ToyLoader().batch(range(4 * step, 4 * step + 4))
            mean = 0.9 * mean + 0.1 * batch.images.flatten(1).mean(0)
        torch.testing.assert_close(four["norm.running_mean"], mean)


class Watching(Callback):
    """Changes a buffer between steps, as an average over the run does."""

    def on_log(self, step: int, row: dict, batch: Batch, task: nn.Module) -> None:
        task.norm.running_mean += 1.0  # type: ignore[operator, union-attr]


def test_what_changes_between_steps_is_no_part_of_a_step(tmp_path: Path) -> None:
    options = TrainOptions(max_steps=3, batch_size=4, log_every_steps=1, device="cpu")
    task = Normed()
    fit(task, ToyLoader(poisoned=range(4, 12)), OPTIM, options, tmp_path, [Watching()])
    assert isinstance(task.norm.running_mean, Tensor)
    batch = ToyLoader().batch(range(4))
    torch.testing.assert_close(task.norm.running_mean, 0.1 * batch.images.flatten(1).mean(0) + 3.0)
