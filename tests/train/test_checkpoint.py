"""A checkpoint is whole or recognised as damaged; a full disk or a kill never costs an earlier one."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.training import ToyTask, fingerprint, train
from lamina.core.errors import LaminaError
from lamina.core.records import unsealed
from lamina.train import checkpoint
from lamina.train.checkpoint import Checkpoint, Retention, newest_good, read, steps, verify, write

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


def content(value: float = 0.0) -> Checkpoint:
    tensors = {
        "a.weight": torch.full((20, 30), value),
        "b": torch.arange(5),
        "half": torch.ones(3).bfloat16(),
    }
    return Checkpoint(tensors, {"a.weight.step": torch.tensor(value)}, {"train": {"lr_sum": 0.1 + 0.2}})


def silent(line: str) -> None:
    raise AssertionError(line)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write(tmp_path, 3, content(1.5))
    found = read(path)
    assert path == tmp_path / "step-3"
    assert verify(path) is None
    assert found.state == {"train": {"lr_sum": 0.1 + 0.2}}
    for ours, theirs in zip(found[:2], content(1.5)[:2], strict=True):
        assert {k: (v.dtype, v.tolist()) for k, v in ours.items()} == {
            k: (v.dtype, v.tolist()) for k, v in theirs.items()
        }


def test_tied_and_strided_tensors_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    model = {"tied": base, "same": base, "turned": base.t(), "part": base[1]}
    found = read(write(tmp_path, 1, Checkpoint(model, {}, {}))).model
    assert all(torch.equal(found[name], tensor) for name, tensor in model.items())


def flips(original: bytes) -> Iterator[bytes]:
    """The text with each of its bits flipped in turn."""
    for bit in range(len(original) * 8):
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def test_every_flipped_bit_of_the_small_files_is_seen(tmp_path: Path) -> None:
    path = write(tmp_path, 1, content())
    manifest = (path / "manifest.json").read_bytes()
    assert unsealed(manifest) is not None
    assert all(unsealed(damaged) is None for damaged in flips(manifest))
    for damaged in flips((path / "state.json").read_bytes()):
        (path / "state.json").write_bytes(damaged)
        assert verify(path) == "state.json was changed"


@pytest.mark.parametrize("name", FILES)
def test_damage_is_seen_and_the_earlier_one_used(name: str, tmp_path: Path) -> None:
    write(tmp_path, 1, content(1.0))
    path = write(tmp_path, 2, content(2.0))
    original, chance = (path / name).read_bytes(), random.Random(0)
    for trial in range(100):
        damaged = bytearray(original)
        if trial % 3 == 0:
            bit = chance.randrange(len(original) * 8)
            damaged[bit // 8] ^= 1 << bit % 8
        elif trial % 3 == 1:
            del damaged[chance.randrange(len(original)) :]
        else:
            damaged[chance.randrange(len(original)) :] = b"\0"
        (path / name).write_bytes(damaged)
        lines: list[str] = []
        assert newest_good(tmp_path, lines.append) == tmp_path / "step-1"
        assert len(lines) == 1
        assert "step 2 is damaged" in lines[0]
        assert "\n" not in lines[0]
    with pytest.raises(LaminaError, match="damaged"):
        read(path)
    (path / name).unlink()
    assert verify(path) == f"{name} is missing"
    (path / name).write_bytes(original)
    assert newest_good(tmp_path, silent) == path


def test_a_renamed_folder_is_damaged(tmp_path: Path) -> None:
    write(tmp_path, 1, content()).rename(tmp_path / "step-9")
    assert "step 1" in (verify(tmp_path / "step-9") or "")


def test_no_good_one_left(tmp_path: Path) -> None:
    assert newest_good(tmp_path / "absent", silent) is None
    (write(tmp_path, 1, content()) / "manifest.json").unlink()
    with pytest.raises(LaminaError, match="all checkpoints"):
        newest_good(tmp_path, lambda line: None)


def test_retention_counts_good_ones_only(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        write(tmp_path, step, content())
    (tmp_path / "step-10/model.safetensors").write_bytes(b"")
    retention = Retention(tmp_path, keep=2)
    retention.prune()
    assert steps(tmp_path) == [2, 3, 10]
    (tmp_path / "step-3/state.json").write_text("{}")
    write(tmp_path, 11, content())
    retention.prune()
    assert steps(tmp_path) == [2, 3, 10, 11]
    assert {p.name for p in tmp_path.iterdir()} == {"step-2", "step-3", "step-10", "step-11"}


def test_a_full_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, content())
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(LaminaError, match=r"only 0.0 MiB are free.*needs 1.0 MiB.*step 1 is kept.*--resume"):
        write(tmp_path, 2, content())
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("limit", [100, 1000, 3000])
def test_a_disk_that_fills_while_writing_keeps_the_earlier_one(limit: int, tmp_path: Path) -> None:
    """The kernel refuses bytes beyond a file size: model, state or manifest is cut, whichever is larger."""
    write(tmp_path, 1, content())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(LaminaError, match="step 1 is kept"):
            write(tmp_path, 2, Checkpoint({"w": torch.ones(1000)}, {}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert newest_good(tmp_path, silent) == tmp_path / "step-1"


class Crash(BaseException):
    """The end of the process: nobody cleans up after it."""


def test_a_crash_at_any_file_operation_keeps_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that touches the disk is the last one in turn: the newest is the old one or the new one."""
    left = 0

    def last(operation: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object, **more: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash
            return operation(*args, **more)

        return run

    for name in ("save_file", "sync", "sha256"):
        monkeypatch.setattr(checkpoint, name, last(getattr(checkpoint, name)))
    for name in ("rename", "open", "fsync"):
        monkeypatch.setattr(os, name, last(getattr(os, name)))
    write(tmp_path, 1, content())
    calls, good = -left, 1
    assert calls > 20
    for crash_at in range(1, calls + 1):
        left = crash_at
        with pytest.raises(Crash):
            write(tmp_path, good + 1, content())
        left = 0
        assert newest_good(tmp_path, silent) in (tmp_path / f"step-{good}", tmp_path / f"step-{good + 1}")
        good = steps(tmp_path)[-1]
        checkpoint.remove_unfinished(tmp_path)
        assert all(p.name.startswith("step-") for p in tmp_path.iterdir())


def test_a_damaged_newest_checkpoint_costs_only_its_own_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "run", checkpoint_every_steps=3, signal_before=7)
    assert steps(tmp_path / "run/checkpoints") == [6, 8]
    broken = tmp_path / "run/checkpoints/step-8/optimizer.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1] + b"x")
    (tmp_path / "run/checkpoints/.unfinished-step-9").mkdir()
    train(tmp_path / "run", resume=True)
    assert (
        "step 8 is damaged (optimizer.safetensors was changed); trying the one before"
        in capsys.readouterr().out
    )
    assert fingerprint(tmp_path / "run", 13) == fingerprint(tmp_path / "whole", 13)
    assert not list((tmp_path / "run/checkpoints").glob(".unfinished*"))


@pytest.mark.parametrize("beside", [False, True])
def test_a_disk_full_during_training(beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    train(tmp_path / "whole")
    train(tmp_path / "run", signal_before=4)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", refuse)
        with pytest.raises(LaminaError, match=r"No space left on device.*step 5 is kept"):
            train(tmp_path / "run", resume=True, checkpoint_every_steps=4, checkpoint_async=beside)
    train(tmp_path / "run", resume=True)
    assert fingerprint(tmp_path / "run", 13) == fingerprint(tmp_path / "whole", 13)


def test_a_frozen_teacher_is_left_out(tmp_path: Path) -> None:
    outcome = train(tmp_path, max_steps=2)
    saved = read(outcome.checkpoint)
    assert not any("teacher" in name for name in (*saved.model, *saved.optimizer))
    assert {"net.1.weight", "steps"} <= set(saved.model)
    assert json.loads((outcome.checkpoint / "state.json").read_text())["train"]["step"] == 2
    other = ToyTask()
    teacher = other.teacher.weight.clone()
    checkpoint.load_model_tensors(other, saved.model)
    assert torch.equal(other.teacher.weight, teacher)


def test_weights_of_another_model_are_refused() -> None:
    saved = checkpoint.model_tensors(nn.Linear(2, 3))
    with pytest.raises(LaminaError, match=r"'weight' is \(3, 2\) there and \(4, 2\) here"):
        checkpoint.load_model_tensors(nn.Linear(2, 4), saved)
    with pytest.raises(LaminaError, match="'bias' is missing in this model"):
        checkpoint.load_model_tensors(nn.Linear(2, 3, bias=False), saved)
