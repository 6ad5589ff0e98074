"""What only shows a run cannot end it: a lost terminal, a full log, a monitor or a report that fails."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.training import OPTIM, ToyLoader, ToyTask, fingerprint, rows, train
from lamina.cli.entry import main
from lamina.core.terminal import TolerantStream
from lamina.data.open import open_source
from lamina.runs.run import Run
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train.callbacks import Callback
from lamina.train.loop import fit
from lamina.train.options import TrainOptions
from lamina.train.state import Outcome

torch.set_num_threads(1)
LOST = {"full": "No space left on device", "pipe": "Broken pipe", "closed": "I/O operation on closed file."}


@contextlib.contextmanager
def losing(kind: str) -> Iterator[None]:
    """Standard output that cannot be written."""
    if kind == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    else:
        stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
        if kind == "closed":
            stream.close()
    with contextlib.redirect_stdout(stream):
        yield
    with contextlib.suppress(OSError):  # what it could not write
        stream.close()


kinds = pytest.mark.parametrize("kind", LOST)


@kinds
def test_training_does_not_need_a_terminal(kind: str, tmp_path: Path) -> None:
    with losing(kind):
        outcome = train(tmp_path / "run")
    assert (outcome.reason, outcome.step) == ("finished", 13)
    log = (tmp_path / "run/train.log").read_text()
    assert log.count(f"standard output cannot be written ({LOST[kind]}); training goes on") == 1
    assert "finished: step 13 of 13" in log
    train(tmp_path / "again")
    assert fingerprint(tmp_path / "run", 13) == fingerprint(tmp_path / "again", 13)


class Broken(Callback):
    """Fails in one of its methods, with the task in evaluation mode and a number that JSON lacks."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.calls = 0

    def fail(self, where: str, task: nn.Module | None = None) -> None:
        if task is not None:
            task.eval()
        if where == self.where:
            self.calls += 1
            raise RuntimeError("no such tracker")

    def on_start(self, state: object) -> None:
        self.fail("start")

    def on_log(self, step: int, row: dict, batch: object, task: nn.Module) -> dict:
        self.fail("log", task)
        return {"odd": object()} if self.where == "json" else {}

    def on_faults(self, faults: object) -> None:
        self.fail("faults")

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        self.fail("checkpoint", task)

    def on_end(self, outcome: Outcome) -> None:
        self.fail("end")

    def state_dict(self) -> dict:
        self.fail("state")
        return {}

    def load_state_dict(self, state: dict) -> None:
        self.fail("load")


OPTIONS = TrainOptions(epochs=2, batch_size=4, log_every_steps=3, checkpoint_every_steps=4, device="cpu")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same run without a callback."""
    folder = tmp_path_factory.mktemp("calm")
    fit(ToyTask(), ToyLoader(faulty=(5,)), OPTIM, OPTIONS, folder)
    return comparable(folder)


def comparable(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = fingerprint(folder, 13)
    found["state"].pop("callbacks")
    return found


@pytest.mark.parametrize("where", ["start", "log", "json", "faults", "checkpoint", "end", "state"])
def test_a_callback_that_fails_changes_nothing_and_is_said_once(
    where: str, calm: dict[str, Any], tmp_path: Path
) -> None:
    broken = Broken(where)
    outcome = fit(ToyTask(), ToyLoader(faulty=(5,)), OPTIM, OPTIONS, tmp_path, [broken])
    assert outcome.reason == "finished"
    assert comparable(tmp_path) == calm
    log = (tmp_path / "train.log").read_text()
    assert log.count("Broken failed (") == 1
    assert log.count("; training goes on") == 1
    assert log.count("Traceback (most recent call last):") == 1
    if where != "json":
        assert "Broken failed (RuntimeError: no such tracker)" in log
        assert broken.calls == {"log": 5, "checkpoint": 4, "state": 4}.get(where, 1)


def test_a_callback_that_cannot_read_its_state_starts_afresh(tmp_path: Path) -> None:
    fit(ToyTask(), ToyLoader(signal_before=4), OPTIM, OPTIONS, tmp_path, [Broken("nowhere")])
    outcome = fit(ToyTask(), ToyLoader(), OPTIM, OPTIONS, tmp_path, [Broken("load")], resume=True)
    assert outcome.reason == "finished"
    assert "Broken starts afresh: its state cannot be read" in (tmp_path / "train.log").read_text()


def test_a_tracker_that_fails_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed (extra: track)")

    def refuse(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lamina.train.log_files.TensorBoard.row", refuse)
    monkeypatch.setattr("lamina.train.progress.ProgressLines.row", refuse)
    assert train(tmp_path, tensorboard=True).reason == "finished"
    log = (tmp_path / "train.log").read_text()
    assert log.count("TensorBoard failed (OSError: No space left on device); training goes on") == 1
    assert log.count("the progress display failed (OSError: No space left on device); training goes on") == 1


def test_what_lamina_warns_of_is_in_train_log(tmp_path: Path) -> None:
    class Warning_(Callback):
        def on_log(self, step: int, row: dict, batch: object, task: nn.Module) -> None:
            logging.getLogger("lamina").warning("look at step %d", step)

    fit(ToyTask(), ToyLoader(), OPTIM, OPTIONS, tmp_path, [Warning_()])
    assert "look at step 9" in (tmp_path / "train.log").read_text()
    assert not logging.getLogger("lamina").handlers


def test_letters_that_a_terminal_lacks_are_escaped() -> None:
    bytes_ = io.BytesIO()
    stream = TolerantStream(io.TextIOWrapper(bytes_, encoding="ascii"))
    stream.write("räume\n")
    stream.flush()
    assert bytes_.getvalue() == b"r\\xe4ume\n"
    assert stream.lost is None


@kinds
def test_a_command_whose_result_is_its_text_says_that_it_is_lost(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    reader_left = kind == "pipe"
    with losing(kind):
        assert main(["--version"]) == (0 if reader_left else 2)
    message = f"lamina: standard output could not be written ({LOST[kind]}); what was printed is incomplete\n"
    assert capsys.readouterr().err == ("" if reader_left else message)


def test_a_failed_check_is_one_though_nobody_reads_it(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    with losing("pipe"):
        assert main(["data", "check", str(tmp_path)]) == 1


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    chance = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(8):
        pixels = chance.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.png")
    return tmp_path / "photos"


def test_pretrain_does_not_need_a_terminal(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sizes = {"image-size": 16, "patch-size": 8, "batch-size": 8, "workers": 0, "max-steps": 3}
    width = {
        f"{part}.{what}": n
        for part in ("encoder", "decoder")
        for what, n in {"width": 16, "depth": 2, "heads": 2}.items()
    }
    more = {**sizes, **width, "train.log-every-steps": 1, "fusion": "none", "device": "cpu"}
    options = [word for name, value in more.items() for word in (f"--{name}", str(value))]
    with losing("full"):
        assert main(["pretrain", str(photos), "--out", str(out), "--recipe", "mae-small", *options]) == 0
    assert [row["step"] for row in Run(out).metrics()] == [1, 2, 3]
    assert "(No space left on device)" in (out / "train.log").read_text()
    assert rows(out)[-1]["step"] == 3
    assert (out / "checkpoints/step-3/manifest.json").is_file()


def test_training_a_tokenizer_does_not_need_a_terminal(tmp_path: Path) -> None:
    for part in ("train", "val", "other"):  # which a note says before the training
        (tmp_path / part).mkdir()
        for shade in (50, 200):
            Image.new("RGB", (16, 16), (shade,) * 3).save(tmp_path / part / f"{shade}.png")
    options = TokenizerOptions(
        image_size=16, width=8, levels=(3, 3), workers=0, batch_size=2, max_steps=1, device="cpu"
    )
    assert open_source(tmp_path, "train").notes
    with losing("closed"):
        outcome = train_tokenizer(tmp_path, tmp_path / "tok", options)
    assert (outcome.reason, outcome.step) == ("finished", 1)


def test_a_closed_standard_output(tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m lamina --version >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
