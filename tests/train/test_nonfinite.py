"""A loss or gradient that is not finite leaves weights and optimiser byte-equal, is counted, and has a limit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.training import ToyTask, fingerprint, rows, train
from lamina.core.errors import LaminaError
from lamina.train import checkpoint

torch.set_num_threads(1)


def bytes_of(folder: Path, step: int) -> list[bytes]:
    path = folder / "checkpoints" / f"step-{step}"
    model = {k: v for k, v in checkpoint.read(path).model.items() if k != "steps"}
    weights = b"".join(v.numpy().tobytes() for _, v in sorted(model.items()))
    return [weights, (path / "optimizer.safetensors").read_bytes()]


class BadGradient(ToyTask):
    """The loss is finite; at one forward a single element of one gradient is not."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.forwards, self.at, self.value = 0, at, value
        assert isinstance(self.net[1], nn.Linear)
        self.net[1].bias.register_hook(self.spoil)

    def spoil(self, gradient: Tensor) -> Tensor:
        self.forwards += 1
        if self.forwards != self.at:
            return gradient
        return gradient.index_fill(0, torch.tensor([3]), self.value)


def test_a_bad_loss_leaves_every_byte(tmp_path: Path) -> None:
    train(tmp_path, checkpoint_every_steps=1, keep_checkpoints=99, poisoned=(9,))  # sample 9 is in step 3
    assert bytes_of(tmp_path, 2) == bytes_of(tmp_path, 3)
    assert bytes_of(tmp_path, 3)[0] != bytes_of(tmp_path, 4)[0]
    assert [row["nonfinite"] for row in rows(tmp_path)] == [1, 1, 1, 1, 1]
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]) for row in rows(tmp_path))
    assert (
        "step 3 skipped: its loss or gradient is not finite (1 so far, at most 6)"
        in (tmp_path / "train.log").read_text()
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("micro", [None, 3])
def test_one_bad_gradient_leaves_every_byte(value: float, micro: int | None, tmp_path: Path) -> None:
    task = BadGradient(at=4 if micro is None else 8, value=value)
    outcome = train(
        tmp_path, task=task, checkpoint_every_steps=1, keep_checkpoints=99, micro_batch_size=micro
    )
    assert bytes_of(tmp_path, 3) == bytes_of(tmp_path, 4)
    assert bytes_of(tmp_path, 4)[1] != bytes_of(tmp_path, 5)[1]
    assert outcome.row["nonfinite"] == 1


def test_an_interval_without_a_finite_loss_has_none(tmp_path: Path) -> None:
    outcome = train(tmp_path, poisoned=range(12))
    assert (rows(tmp_path)[0]["loss"], rows(tmp_path)[0]["grad_norm"]) == (None, None)
    assert rows(tmp_path)[1]["loss"] is not None
    assert outcome.row["nonfinite"] == 3


def test_the_limit_stops_the_run_and_saves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = train(tmp_path, poisoned=range(8, 26), nonfinite_limit=2)
    assert (outcome.reason, outcome.step, outcome.exit_code) == ("nonfinite", 5, 70)
    assert checkpoint.verify(outcome.checkpoint) is None
    assert "stopped, too many steps" in capsys.readouterr().out
    train(tmp_path / "whole", poisoned=range(8, 26))
    train(tmp_path, poisoned=range(8, 26), resume=True)
    assert fingerprint(tmp_path, 13) == fingerprint(tmp_path / "whole", 13)


def test_fp16_overflows_find_the_scale_and_are_not_counted(tmp_path: Path) -> None:
    """Gradients of a loss times 1e4 do not fit float16 at the first scale of 65536."""
    settings = {"precision": "fp16", "checkpoint_every_steps": 1, "keep_checkpoints": 99}
    outcome = train(tmp_path, task=ToyTask(loss_scale=1e4), **settings)
    scales = [
        checkpoint.read(tmp_path / f"checkpoints/step-{k}").state["scaler"]["scale"] for k in (1, 2, 13)
    ]
    assert scales[0] == 32768.0
    assert scales[2] < scales[1] < scales[0]
    assert bytes_of(tmp_path, 1) == bytes_of(tmp_path, 2)
    assert outcome.row["nonfinite"] == 0
    assert bytes_of(tmp_path, 12) != bytes_of(tmp_path, 13)


def test_fp16_without_any_fitting_scale_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LaminaError, match="--resume and --precision bf16 or fp32"):
        train(tmp_path, task=ToyTask(loss_scale=1e12), precision="fp16", epochs=6.0)
