"""A loss of power, or a kill, at each change of the disk: saved steps are never lost, nor seen in parts."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from helpers.lossy_disk import LossyDisk
from helpers.training import fingerprint, train
from lamina.train import checkpoint
from lamina.train.checkpoint import Checkpoint, newest_good, steps, verify

torch.set_num_threads(1)
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the simulated disk reads files through /proc"
)
SETTINGS = {"max_steps": 6, "checkpoint_every_steps": 1, "keep_checkpoints": 2, "log_every_steps": 1}


class Crashes:
    """Looks at a run's folder after each change: as a kill leaves it, and as a loss of power does."""

    def __init__(self, root: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run, self.scratch = root / "run", scratch
        self.count = itertools.count()
        self.left: list[tuple[int, Path]] = []
        self.saved = 0
        self.disk = LossyDisk(root, monkeypatch, self.look)

    def look(self) -> None:
        self.whole_after_kill()
        saved = self.saved  # before the look: a thread may finish the next one meanwhile
        left = self.disk.after_power_loss(self.scratch / str(next(self.count))) / "run"
        lines: list[str] = []
        newest = newest_good(left / "checkpoints", lines.append)
        assert not lines, "a checkpoint has its name before its bytes"
        step = int(newest.name.removeprefix("step-")) if newest else 0
        assert step >= saved, "a step that was saved is lost"
        if newest:
            rows = [json.loads(line)["step"] for line in (left / "metrics.jsonl").read_text().splitlines()]
            assert rows[:step] == list(range(1, step + 1)), "a checkpoint counts on rows that are lost"
        self.left.append((step, left))

    def whole_after_kill(self) -> None:
        for step in steps(self.run / "checkpoints"):
            assert verify(self.run / "checkpoints" / f"step-{step}") is None, "a checkpoint is seen in parts"


@pytest.mark.parametrize("beside", [False, True])
def test_power_is_lost_after_each_change_of_the_disk(
    beside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that trains, and in one beside it (`checkpoint_async`)."""
    root, scratch, write = tmp_path / "disk", tmp_path / "left", checkpoint.write
    root.mkdir()
    scratch.mkdir()
    with monkeypatch.context() as patch:
        crashes = Crashes(root, scratch, patch)

        def write_and_note(folder: Path, step: int, content: Checkpoint) -> Path:
            path = write(folder, step, content)
            crashes.saved = step
            return path

        patch.setattr(checkpoint, "write", write_and_note)
        train(crashes.run, checkpoint_async=beside, **SETTINGS)
    crashes.disk.close()
    assert {step for step, _ in crashes.left} == set(range(7))
    train(tmp_path / "whole", **SETTINGS)
    expected = fingerprint(tmp_path / "whole", 6)
    for step in range(7):  # what is left with each newest checkpoint goes on to the same end
        left = [path for newest, path in crashes.left if newest == step][-1]
        train(left, resume=True, **SETTINGS)
        assert fingerprint(left, 6) == expected
