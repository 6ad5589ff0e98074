"""Folders that commands fill: one writer at a time, and the old content goes only when the new one computes."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from helpers.locks import FORK, hold
from helpers.options import TINY_RUN, words
from helpers.training import OPTIM, ToyLoader, ToyTask
from lamina.cli.entry import main
from lamina.core import locking
from lamina.core.errors import LaminaError
from lamina.core.locking import LOCK, one_writer
from lamina.data.loading.bad_files import FaultBudget
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.evaluate.dense.train import begin_evaluation, fit_protocol, opened_evaluation
from lamina.evaluate.protocol import RunOptions
from lamina.runs.resumable_folder import ResumableFolder, Started, opened
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train.distributed import Ranks
from lamina.train.options import TrainOptions

torch.set_num_threads(1)
DATA = "sample:photos?crop=16&most=2"
TINY = words(TINY_RUN | {"batch-size": 16, "max-steps": 1, "monitor.images": 0})
ONE = Ranks(0, 1, torch.device("cpu"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def old_run(path: Path) -> Path:
    (path / "checkpoints").mkdir(parents=True)
    (path / "recipe.yaml").write_text("old")
    (path / "checkpoints" / "weights").write_text("old weights")
    return path


def at(path: Path) -> Callable[[], bool]:
    return (path / "recipe.yaml").is_file


def test_two_processes_never_write_at_once(tmp_path: Path) -> None:
    ready, ends = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(str(tmp_path), ready, ends))
    other.start()
    assert ready.wait(30)
    for _ in range(2):  # being refused does not break the lock
        with (
            pytest.raises(LaminaError, match=rf"another process \(process {other.pid} on"),
            one_writer(tmp_path, "it"),
        ):
            pass
    ends.set()
    other.join(30)
    with one_writer(tmp_path, "it"):
        assert f"process {os.getpid()}" in (tmp_path / LOCK).read_text()
    assert not (tmp_path / LOCK).exists()


def test_the_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    ready, ends = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(str(tmp_path), ready, ends))
    other.start()
    assert ready.wait(30)
    os.kill(other.pid, signal.SIGKILL)
    other.join(30)
    with one_writer(tmp_path, "it"):
        pass


def test_a_worker_that_outlives_its_parent_does_not_keep_the_lock(tmp_path: Path) -> None:
    """Loader workers are forked with the file open; after kill -9 of the run they live on for seconds."""

    def parent(told: object) -> None:
        with one_writer(tmp_path, "it"):
            if (worker := os.fork()) == 0:
                signal.pause()
            told.send(worker)
            os.kill(os.getpid(), signal.SIGKILL)

    here, there = FORK.Pipe()
    process = FORK.Process(target=parent, args=(there,))
    process.start()
    worker = here.recv()
    os.waitpid(process.pid, 0)
    try:
        with one_writer(tmp_path, "it"):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.fcntl, "lockf", refuse)
    with one_writer(tmp_path, "it"):
        pass
    assert "this file system has no locks" in capsys.readouterr().err


def test_what_never_started_leaves_the_old_one_as_it_was(tmp_path: Path, capsys) -> None:
    run = old_run(tmp_path / "run")
    before = content(run)
    with suppress(ZeroDivisionError), opened(run, at(run), "run") as folder:
        folder.check(resume=False, overwrite=True)
        folder.begin()
        assert content(run).keys() == {LOCK, *(f".replaced/{name}" for name in before)}
        (run / "recipe.yaml").write_text("new")
        raise ZeroDivisionError
    assert content(run) == before
    assert "is kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("resume", "overwrite", "says"),
    [
        (False, True, "give --resume in place of it"),
        (False, False, "go on with --resume"),
        (True, False, None),
    ],
)
def test_ranks_that_torchrun_restarts_delete_nothing(
    resume: bool, overwrite: bool, says: str | None, tmp_path: Path, monkeypatch
) -> None:
    """The command is the first attempt's: what it began is there, and `--overwrite` would begin anew."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run = old_run(tmp_path / "run")
    with opened(run, at(run), "run") as folder:
        if says is None:
            folder.check(resume, overwrite)
        else:
            with pytest.raises(LaminaError, match=says):
                folder.check(resume, overwrite)
    assert (run / "checkpoints" / "weights").read_text() == "old weights"
    with opened(tmp_path / "new", at(tmp_path / "new"), "run") as folder:
        folder.check(resume, overwrite)  # nothing was begun


def test_what_started_replaces_the_old_one(tmp_path: Path) -> None:
    run = old_run(tmp_path / "run")
    with opened(run, at(run), "run") as folder:
        folder.begin()
        (run / "recipe.yaml").write_text("new")
        Started(folder).on_first_step()
    assert content(run) == {"recipe.yaml": b"new"}


class Killed(BaseException):
    """In place of SIGKILL: nothing after it runs, not even clean-ups."""


@pytest.mark.parametrize("at_call", range(8))
def test_killed_at_any_rename_nothing_of_the_old_one_is_lost(
    at_call: int, tmp_path: Path, monkeypatch
) -> None:
    """Two entries and the folder are renamed aside, then the new one is written, or the old one comes back."""
    run = old_run(tmp_path / "run")
    before = content(run)
    calls, rename = [0], os.rename

    def counted(*paths: object) -> None:
        if calls[0] == at_call:
            raise Killed
        calls[0] += 1
        rename(*paths)

    monkeypatch.setattr(os, "rename", counted)
    try:
        folder = ResumableFolder(run, at(run), "run")
        folder.begin()
        (run / "recipe.yaml").write_text("new")
        (run / "checkpoints").mkdir()
        folder.settle()  # as after an error: it never started
    except Killed:
        pass
    monkeypatch.undo()
    ResumableFolder(run, at(run), "run")  # the next command finds it
    assert content(run) == before


def test_folders_with_nothing_but_what_a_killed_process_left_are_empty(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".unfinished-x").mkdir(parents=True)
    for name in (".unfinished-recipe.yaml", ".environment.json.4711.tmp", ".lock"):
        (run / name).write_text("half")
    with opened(run, at(run), "run") as folder:
        folder.check(resume=False, overwrite=False)
        assert [f.name for f in run.iterdir()] == [LOCK]
    assert not run.exists() or not list(run.iterdir())
    (run).mkdir(exist_ok=True)
    (run / ".bashrc").write_text("mine")
    with pytest.raises(LaminaError, match="is not a run"), opened(run, at(run), "run") as folder:
        folder.check(resume=False, overwrite=True)
    assert (run / ".bashrc").read_text() == "mine"


def test_a_refused_command_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), opened(tmp_path / "a" / "b", bool, "run"):
        raise ZeroDivisionError
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(LaminaError, match="is not a run"), opened(tmp_path / "file", bool, "run"):
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "run"
    assert main(["pretrain", DATA, "--out", str(path), *TINY]) == 0
    return path


@pytest.mark.parametrize(
    "wrong",
    [
        ["--optim.eps", "-1"],
        ["--optim.betas", "0.9", "1.5"],
        ["--train.tensorboard", "--train.device", "meta"],
        ["--optim.layer-decay", "0.5"],
        ["--image-size", "17"],
    ],
)
def test_overwrite_with_options_that_do_not_run_keeps_the_old_run(wrong: list[str], run: Path) -> None:
    before = content(run)
    try:
        code = main(["pretrain", DATA, "--out", str(run), *TINY, "--overwrite", *wrong])
    except Exception:
        code = 1
    assert code != 0
    assert content(run) == before


def test_overwrite_with_options_that_run_replaces_it(run: Path) -> None:
    (run / "results").mkdir()
    (run / "results" / "old.json").write_text("{}")
    assert main(["pretrain", DATA, "--out", str(run), *TINY, "--overwrite", "--seed", "5"]) == 0
    assert not (run / "results").exists()
    assert not [f.name for f in run.iterdir() if f.name.startswith(".")]


def test_resume_and_overwrite_exclude_each_other(run: Path, capsys) -> None:
    before = content(run)
    assert main(["pretrain", DATA, "--out", str(run), *TINY, "--overwrite", "--resume"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert content(run) == before


def test_a_run_in_training_is_not_touched_by_another_command(run: Path, capsys) -> None:
    ready, ends = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(str(run), ready, ends))
    other.start()
    assert ready.wait(30)
    before = content(run)
    for way in ("--overwrite", "--resume"):
        assert main(["pretrain", DATA, "--out", str(run), *TINY, way]) == 2
        assert f"the run in {run} is being written by another process" in capsys.readouterr().err
    assert content(run) == before
    ends.set()
    other.join(30)


class Broken(ToyTask):
    def forward(self, batch: object) -> dict:
        raise RuntimeError("a kernel that does not exist")


def test_evaluations_that_train_keep_the_old_one_too(tmp_path: Path) -> None:
    folder, options = tmp_path / "segment", TrainOptions(max_steps=2, batch_size=4, device="cpu")
    loader = ToyLoader()
    loader.budget = FaultBudget(open_source(DATA), DataOptions())  # type: ignore[attr-defined]

    def train(task: ToyTask, **going: bool) -> None:
        fit_protocol(task, loader, OPTIM, options, folder, {"lr": len(going)}, RunOptions(**going))

    with pytest.raises(RuntimeError):
        train(Broken())
    assert not folder.exists()
    train(ToyTask())
    before = content(folder)
    with pytest.raises(RuntimeError):
        train(Broken(), overwrite=True)
    assert content(folder) == before
    train(ToyTask(), overwrite=True)
    assert content(folder)["evaluation.yaml"].endswith(b"lr: 1\n")
    with suppress(RuntimeError), opened_evaluation(ONE, folder, RunOptions(overwrite=True)) as opened:
        begin_evaluation(ONE, opened, folder, {}, RunOptions(overwrite=True))
        raise RuntimeError  # kNN of patches, which trains nothing
    assert content(folder)["evaluation.yaml"].endswith(b"lr: 1\n")


def test_tokenizers_keep_the_old_one_too(tmp_path: Path) -> None:
    options = {"image_size": 16, "width": 4, "depth": 1, "max_steps": 1, "workers": 0, "device": "cpu"}
    train_tokenizer(DATA, tmp_path / "t", TokenizerOptions(**options))
    before = content(tmp_path / "t")
    with pytest.raises(TypeError):
        train_tokenizer(DATA, tmp_path / "t", TokenizerOptions(**options | {"base_lr": "x"}), overwrite=True)
    assert content(tmp_path / "t") == before


@pytest.mark.parametrize("verb", ["study", "comparison"])
def test_studies_and_comparisons_have_one_writer(verb: str, tmp_path: Path, capsys) -> None:
    ready, ends = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(str(tmp_path), ready, ends))
    other.start()
    assert ready.wait(30)
    words = {
        "study": ["study", "pair", "--out", str(tmp_path), "--data", DATA],
        "comparison": ["evaluate", "all", "untrained:vit_tiny_patch16_224", DATA, "--out", str(tmp_path)],
    }
    assert main(words[verb]) == 2
    assert f"the {verb} in {tmp_path} is being written by another process" in capsys.readouterr().err
    ends.set()
    other.join(30)
