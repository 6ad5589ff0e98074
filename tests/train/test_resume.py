"""A run that was interrupted, anywhere and anyhow, ends like one that was not: bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.training import ToyTask, check_resumes, fingerprint, rows, train
from lamina.core.errors import LaminaError

torch.set_num_threads(1)
STEPS = 13  # two epochs of 26 samples in batches of 4
SETTINGS = {
    "plain": {},
    "accumulated": {"micro_batch_size": 3},
    "max_steps": {"max_steps": 11, "log_every_steps": 4},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "faults": {"poisoned": (9, 30), "faulty": (3, 17, 18)},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_resume_at_every_step_is_bit_identical(name: str, tmp_path: Path) -> None:
    settings = SETTINGS[name]
    whole = tmp_path / "whole"
    end = train(whole, checkpoint_every_steps=1, keep_checkpoints=99, **settings)
    assert end.step == settings.get("max_steps", STEPS)
    check_resumes(whole, end.step, lambda run: train(run, resume=True, **settings), at=range(1, end.step + 1))


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 3}], ids=["plain", "accumulated"])
def test_a_signal_before_any_step_is_bit_identical(settings: dict, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", **settings)
    expected = fingerprint(tmp_path / "whole", whole.step)
    for step in range(STEPS - 1):
        folder = tmp_path / f"signal-{step}"
        first = train(folder, signal_before=step, **settings)
        assert (first.reason, first.step, first.exit_code) == ("interrupted", step + 1, 75)
        second = train(folder, resume=True, **settings)
        assert second.reason == "finished"
        assert fingerprint(folder, STEPS) == expected


def test_many_interruptions_of_one_run(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    folder = tmp_path / "often"
    codes = [train(folder, resume=True, signal_before=step).exit_code for step in range(STEPS)]
    assert codes == [75] * (STEPS - 1) + [0]
    assert fingerprint(folder, STEPS) == fingerprint(tmp_path / "whole", STEPS)


def test_dropout_and_the_partial_interval_matter(tmp_path: Path) -> None:
    """The test above would not notice a task without randomness or checkpoints at log steps alone."""
    train(tmp_path / "a")
    train(tmp_path / "b", seed=1)
    assert rows(tmp_path / "a") != rows(tmp_path / "b")
    train(tmp_path / "c", signal_before=3)
    state = json.loads((tmp_path / "c/checkpoints/step-4/state.json").read_text())
    assert state["meter"]["counts"] == [1.0, 1.0, 1.0]
    assert state["samples_consumed"] == 16


def test_resume_of_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    train(tmp_path)
    before = fingerprint(tmp_path, STEPS)
    assert train(tmp_path, resume=True).reason == "finished"
    assert fingerprint(tmp_path, STEPS) == before


def test_resume_without_a_checkpoint_starts(tmp_path: Path) -> None:
    assert train(tmp_path, resume=True).reason == "finished"


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path: Path) -> None:
    train(tmp_path, max_steps=5)
    assert train(tmp_path, max_steps=8, resume=True).step == 8
    assert [row["step"] for row in rows(tmp_path)] == [3, 5, 6, 8]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 8}, "batch_size 4, not 8"),
        ({"seed": 5}, "seed 0, not 5"),
        ({"max_steps": 2}, "beyond"),
    ],
)
def test_a_resume_that_cannot_be_exact_is_refused(change: dict, words: str, tmp_path: Path) -> None:
    train(tmp_path, max_steps=4)
    with pytest.raises(LaminaError, match=words):
        train(tmp_path, resume=True, **change)


def test_another_model_is_refused(tmp_path: Path) -> None:
    train(tmp_path, max_steps=2)
    with pytest.raises(LaminaError, match="of another model"):
        train(tmp_path, resume=True, task=ToyTask(width=8))


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    train(tmp_path, max_steps=2)
    with pytest.raises(LaminaError, match="--resume or start with --overwrite"):
        train(tmp_path, max_steps=2)
