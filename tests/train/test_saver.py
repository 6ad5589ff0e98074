"""Checkpoints that are written while training goes on are those of the step at which they were taken."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.runs import toy_recipe
from helpers.training import OPTIM, ToyLoader, ToyTask, fingerprint, train
from lamina.callbacks.export_encoder import EncoderExport
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.recipes.build import build_method
from lamina.train import checkpoint
from lamina.train.callbacks import Callback
from lamina.train.host_copy import HostCopy
from lamina.train.loop import fit
from lamina.train.options import TrainOptions
from lamina.train.saver import Saver

torch.set_num_threads(1)
SECONDS = 60.0


class Gate:
    """Holds the writing of a checkpoint until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.opened, self.written, self.started = threading.Event(), [], []
        write = checkpoint.write

        def held(folder: Path, step: int, content: checkpoint.Checkpoint) -> Path:
            self.started.append(step)
            assert self.opened.wait(SECONDS)
            if error:
                raise error
            path = write(folder, step, content)
            self.written.append(step)
            return path

        monkeypatch.setattr(checkpoint, "write", held)


class Opening(ToyLoader):
    """Opens a gate before the batch of one step, and notes before each batch what was written."""

    def __init__(self, gate: Gate, at: int, fails_at: int | None = None) -> None:
        super().__init__()
        self.gate, self.at, self.fails_at = gate, at, fails_at
        self.seen: dict[int, list[int]] = {}

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        for step in range(first_step, last_step):
            self.seen[step] = list(self.gate.written)
            if step == self.at:
                self.gate.opened.set()
            if step == self.fails_at:
                raise KeyError("x")
            yield from super().batches(step, step + 1)


class Told(Callback):
    """Notes of each checkpoint the thread in which it was told, and the weights that it was given."""

    required = True

    def __init__(self, beside: bool) -> None:
        self.beside_training = beside  # type: ignore[misc]
        self.threads: dict[int, str] = {}
        self.weights: dict[int, dict[str, Tensor]] = {}

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        assert checkpoint.verify(folder) is None
        self.threads[step] = threading.current_thread().name
        self.weights[step] = {k: v.clone() for k, v in checkpoint.model_tensors(task).items()}


def options(**more: object) -> TrainOptions:
    asked = {"epochs": 2.0, "batch_size": 4, "log_every_steps": 3, "device": "cpu", "keep_checkpoints": 9}
    return TrainOptions(**{**asked, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [False, True])
def test_training_goes_on_and_the_checkpoint_is_of_its_step(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "waiting", checkpoint_every_steps=4, keep_checkpoints=9, checkpoint_async=False)
    gate, told = Gate(monkeypatch), Told(beside)
    loader = Opening(gate, at=6)
    fit(ToyTask(), loader, OPTIM, options(checkpoint_every_steps=4), tmp_path / "run", [told])
    assert loader.seen[4] == loader.seen[5] == loader.seen[6] == [], "steps 5 and 6 were taken meanwhile"
    for step in (4, 8, 12, 13):
        expected = checkpoint.read(tmp_path / f"waiting/checkpoints/step-{step}")
        found = checkpoint.read(tmp_path / f"run/checkpoints/step-{step}")
        for ours, theirs in zip((*found[:2], told.weights[step]), (*expected[:2], expected[0]), strict=True):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert found.state["metrics_rows"] == expected.state["metrics_rows"]
        assert found.state["meter"] == expected.state["meter"]
    assert {name.startswith("lamina-checkpoint") for name in told.threads.values()} == {beside}


def test_the_next_save_waits_for_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    timer = threading.Timer(0.3, gate.opened.set)
    timer.start()
    loader = Opening(gate, at=99)
    fit(ToyTask(), loader, OPTIM, options(checkpoint_every_steps=2, max_steps=4), tmp_path)
    timer.join()
    assert loader.seen[3] == []
    assert gate.started == gate.written == [2, 4]


def test_a_signal_in_the_waiting_does_not_lose_the_checkpoint_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy must not be written over while a thread still writes it."""
    saver = Saver(tmp_path, options())
    writing: Future[bool] = Future()
    monkeypatch.setattr(writing, "result", lambda: _interrupt())
    saver._writing = writing
    with pytest.raises(KeyboardInterrupt):
        saver.finish()
    assert saver._writing is writing
    monkeypatch.undo()
    writing.set_result(False)
    saver.finish()
    assert saver._writing is None
    saver.close()


def _interrupt() -> bool:
    raise KeyboardInterrupt


def test_an_error_of_the_thread_ends_the_run_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, told = Gate(monkeypatch, LaminaError("the disk is gone")), Told(False)
    loader = Opening(gate, at=5)
    with pytest.raises(LaminaError, match="the disk is gone") as caught:
        fit(ToyTask(), loader, OPTIM, options(checkpoint_every_steps=4), tmp_path, [told])
    assert not hasattr(caught.value, "__notes__"), "saving is what failed: nothing more is saved"
    assert max(loader.seen) == 5, "long before the next checkpoint, which was due after batch 7"
    assert told.threads == {}


class Objecting(Told):
    """Fails once a checkpoint is there."""

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "encoder.safetensors")


@pytest.mark.parametrize("beside", [False, True])
def test_a_callback_that_fails_after_the_last_step_is_no_finished_run(beside: bool, tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match=r"step 2 could not be saved in .*No space left") as caught:
        fit(ToyTask(), ToyLoader(), OPTIM, options(max_steps=2), tmp_path, [Objecting(beside)])
    assert not hasattr(caught.value, "__notes__")
    assert "finished" not in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("beside", [False, True])
def test_an_error_of_training_waits_for_the_checkpoint_and_saves_its_own_step(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, told = Gate(monkeypatch), Told(beside)
    loader = Opening(gate, at=6, fails_at=6)
    with pytest.raises(KeyError) as caught:
        fit(ToyTask(), loader, OPTIM, options(checkpoint_every_steps=4), tmp_path, [told])
    assert gate.written == [4, 6]
    assert list(told.threads) == [4, 6]
    assert caught.value.__notes__[-1].startswith("step 6 of 13 is saved in")
    train(tmp_path / "whole", checkpoint_every_steps=6, keep_checkpoints=9)
    for name in ("model.safetensors", "optimizer.safetensors"):
        found, whole = (tmp_path / place / "checkpoints/step-6" / name for place in (".", "whole"))
        assert found.read_bytes() == whole.read_bytes()


def test_an_error_of_both_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, LaminaError("the disk is gone"))
    with pytest.raises(KeyError) as caught:
        fit(
            ToyTask(),
            Opening(gate, at=4, fails_at=4),
            OPTIM,
            options(checkpoint_every_steps=4, max_steps=5),
            tmp_path,
        )
    assert caught.value.__notes__ == ["step 4 of 5 could not be saved (the disk is gone)"]


class Uncopied(ToyTask):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_a_module_that_cannot_be_copied_is_saved_while_training_waits(tmp_path: Path) -> None:
    fit(Uncopied(), ToyLoader(), OPTIM, options(checkpoint_every_steps=4), tmp_path / "uncopied")
    fit(ToyTask(), ToyLoader(), OPTIM, options(checkpoint_every_steps=4), tmp_path / "copied")
    log = (tmp_path / "uncopied/train.log").read_text()
    assert log.count("training waits while checkpoints are written: no copy can be made (TypeError") == 1
    assert fingerprint(tmp_path / "uncopied", 13) == fingerprint(tmp_path / "copied", 13)


class Broken(HostCopy):
    """Its device is lost when its memory is read."""

    def _kept(self, name: str, tensor: Tensor) -> Tensor:
        raise RuntimeError("the device is lost")


def test_an_error_of_the_device_is_no_reason_to_write_without_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamina.train.saver.HostCopy", Broken)
    with pytest.raises(RuntimeError, match="the device is lost"):
        fit(ToyTask(), ToyLoader(), OPTIM, options(checkpoint_every_steps=4), tmp_path)
    assert "no copy can be made" not in (tmp_path / "train.log").read_text()


def test_a_host_without_room_for_a_copy_writes_while_training_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*shape: object, **kind: object) -> Tensor:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr("lamina.train.host_copy.torch", SimpleNamespace(empty=full))
    fit(ToyTask(), ToyLoader(), OPTIM, options(checkpoint_every_steps=4), tmp_path)
    assert (tmp_path / "train.log").read_text().count("no copy can be made (can't allocate memory)") == 1


def test_a_copy_shares_nothing_but_what_no_checkpoint_holds() -> None:
    task = ToyTask()
    task.net.append(nn.Linear(12, 12))
    task.net[-1].weight = nn.Parameter(torch.eye(12))
    task.tied = task.net[-1].weight
    held = HostCopy()
    copied = held.module(task)
    state = {name: value.clone() for name, value in checkpoint.model_tensors(task).items()}
    assert copied.teacher.weight is task.teacher.weight
    assert copied.tied is copied.net[-1].weight
    places = {name: value.data_ptr() for name, value in checkpoint.model_tensors(copied).items()}
    assert not set(places.values()) & {value.data_ptr() for value in checkpoint.model_tensors(task).values()}
    with torch.no_grad():
        for value in checkpoint.model_tensors(task).values():
            value.add_(1)
    found = checkpoint.model_tensors(copied)
    assert state.keys() == found.keys()
    assert all(torch.equal(state[name], found[name]) for name in state)
    again = checkpoint.model_tensors(held.module(task))
    assert {name: value.data_ptr() for name, value in again.items()} == places, "the memory is used again"
    assert all(torch.equal(again[name], value) for name, value in checkpoint.model_tensors(task).items())


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_small_patch16_dinov3"]
)
def test_an_export_beside_the_training_leaves_its_random_numbers_alone(name: str, tmp_path: Path) -> None:
    made = toy_recipe(name)
    task = build_method(made)
    export = EncoderExport(tmp_path / "encoder", made.encoder, made.fusion)
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    export.on_checkpoint(1, tmp_path, HostCopy().module(task))
    after = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert export.beside_training
    assert (tmp_path / "encoder/model.safetensors").is_file()
