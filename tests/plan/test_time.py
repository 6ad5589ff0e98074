"""Time: how it is written, when a run's end is said, and runs that fit into a budget."""

from __future__ import annotations

import shutil
import time

import pytest
import torch

import lamina
from helpers.options import TINY_NETWORK
from helpers.training import OPTIM, ToyLoader, ToyTask
from lamina.cli.entry import main
from lamina.core.durations import duration_text, parse_duration
from lamina.core.errors import LaminaError
from lamina.methods.catalog import recipe
from lamina.plan.fit import fit_to_time
from lamina.plan.options import Fitting
from lamina.runs.run import Run
from lamina.train.calibrate import seconds_per_step
from lamina.train.distributed import Ranks
from lamina.train.expected_end import ExpectedEnd
from lamina.train.options import TrainOptions

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5d", 129_600), ("45 s", 45), ("2h 5min", 7500)],
)
def test_lengths_of_time_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2h x", "0s", "1e3s"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(LaminaError, match="length of time"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (45, "45 s"),
        (59.6, "1 min"),
        (2100, "35 min"),
        (7800, "2 h 10 min"),
        (7200, "2 h"),
        (86_400 * 3, "3 days"),
        (86_400 * 2.5, "2 days 12 h"),
    ],
)
def test_lengths_of_time_as_people_read_them(seconds, text):
    assert duration_text(seconds) == text


def ends(step_seconds, total: int) -> list[tuple[int, str]]:
    """What is said after which step, where step k takes `step_seconds(k)`."""
    expected, now, said = ExpectedEnd(total), 0.0, []
    for step in range(1, total + 1):
        now += step_seconds(step)
        if line := expected.after(step, now):
            said.append((step, line))
    return said


def test_the_end_is_said_once_where_steps_are_alike():
    """After 20 steps beyond the first, which is slow: 979 steps of 1 s are 16 min."""
    ((step, line),) = ends(lambda step: 100.0 if step == 1 else 1.0, 1000)
    assert step == 21
    assert "in 16 min: a step takes 1 s" in line


def test_the_end_is_said_after_half_a_minute_where_steps_are_slow():
    ((step, line),) = ends(lambda step: 12.0, 100)
    assert step == 4  # three steps of 12 s after the first
    assert "in 19 min" in line


def test_the_end_is_said_again_where_it_moves():
    """From step 100 of 1000 on, steps are twice as slow: the end moves from 1000 s to 1900 s, in jumps of 20 %."""
    said = ends(lambda step: 1.0 if step <= 100 else 2.0, 1000)
    assert 2 <= len(said) <= 6
    assert said[0][0] == 21
    assert all(line.startswith("now expected") for _, line in said[1:])


def test_short_runs_say_nothing():
    assert ends(lambda step: 0.1, 200) == []


def test_a_step_is_measured_as_it_is():
    """Batches take 20 ms; no file is written, and the number of steps does not matter."""
    task, loader = ToyTask(), ToyLoader(seconds=0.02)
    started = time.perf_counter()
    each = seconds_per_step(task, loader, OPTIM, TrainOptions(batch_size=4, max_steps=2), ALONE, seconds=0.3)
    assert 0.3 <= time.perf_counter() - started < 10
    assert 0.02 <= each < 0.2


def test_a_budget_sets_the_steps_and_keeps_the_warm_ups_share():
    """2,000 s: 60 for the trial, and 100 are left for other things; a step takes 4 s. mae-s warms up for 40 of 800
    epochs."""
    asked = []

    def measure(seconds: float) -> float:
        asked.append(seconds)
        return 4.0

    found = fit_to_time(recipe("mae-s"), 4096, ALONE, Fitting(seconds=2000.0), measure)
    assert asked == [60.0]
    assert found.train.max_steps == (2000 - 100 - 60) / 4
    assert found.optim.warmup_epochs == pytest.approx(460 / 20)
    given = fit_to_time(
        recipe("mae-s"), 4096, ALONE, Fitting(frozenset({"optim.warmup_epochs"}), seconds=2000.0), measure
    )
    assert given.optim.warmup_epochs == 40
    assert fit_to_time(recipe("mae-s"), 4096, ALONE, Fitting(), measure) == recipe("mae-s")
    with pytest.raises(LaminaError, match="too short"):
        fit_to_time(recipe("mae-s"), 4096, ALONE, Fitting(seconds=1.0), measure)


def test_a_run_in_a_budget_resumes_exactly(tmp_path, capsys):
    """The recipe holds the number of steps, so that the same command resumes it without measuring again."""
    data, out = "sample:photos?crop=16&most=2", tmp_path / "run"
    options = {
        **TINY_NETWORK,
        "monitor.images": 0,
    }
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 8, "workers": 0, "device": "cpu"}
    lamina.pretrain(data, out, "mae-small", time=1.0, options=options, **sizes)
    kept = Run(out).recipe()
    assert kept.train.max_steps is not None
    assert Run(out).metrics()[-1]["step"] == kept.train.max_steps
    assert f"{kept.train.max_steps:,} steps (" in capsys.readouterr().out
    shutil.rmtree(out / "checkpoints")  # so that the whole run is taken again
    before = (out / "recipe.yaml").read_bytes()
    assert main(["pretrain", data, "--out", str(out), "--resume", "--time", "2h"]) == 0
    assert (out / "recipe.yaml").read_bytes() == before
    assert Run(out).metrics()[-1]["step"] == kept.train.max_steps
    assert "--time has no effect on a run that goes on" in capsys.readouterr().out
    assert main(["pretrain", data, "--out", str(tmp_path / "x"), "--time", "2h", "--epochs", "3"]) == 2
    assert main(["pretrain", data, "--out", str(tmp_path / "x"), "--time", "soon"]) == 2
