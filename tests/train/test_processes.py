"""Real processes: ranks that agree, signals from outside, and kill -9 at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import lamina
from helpers import training
from helpers.ranks import PRELOAD
from helpers.training import child, fingerprint, rows, train
from lamina.train import checkpoint

torch.set_num_threads(1)
SHARED: dict[str, Any] = {
    "max_steps": 8,
    "checkpoint_every_steps": 1,
    "keep_checkpoints": 99,
    "poisoned": [9],
    "faulty": [4, 6, 7],
}


@pytest.fixture(scope="module", autouse=True)
def _path_for_children() -> Iterator[None]:
    """Children import this folder's helpers, and the lamina that is tested here, not an installed one."""
    folders = (Path(__file__).parents[1], Path(lamina.__file__).parent.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        yield


def test_children_run_the_code_that_is_tested(tmp_path: Path) -> None:
    source = tmp_path / "source.txt"
    process = multiprocessing.get_context("forkserver").Process(target=write_source, args=(source,))
    process.start()
    assert end(process) == 0
    assert Path(source.read_text()) == Path(lamina.__file__)


def write_source(path: Path) -> None:
    """In a child: which lamina it imported."""
    path.write_text(lamina.__file__)


def start(folder: Path, environment: dict[str, str] | None = None, **asked: Any) -> BaseProcess:
    """A run in a new process, forked from one that has imported everything and computed nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    output = folder.with_name(folder.name + ".txt")
    process = context.Process(target=child, args=(folder, output, environment or {}, asked))
    process.start()
    return process


def end(process: BaseProcess) -> int | None:
    """The exit code; None where the process hangs, which no busy machine and slow disk makes it look like."""
    process.join(300)
    return process.exitcode


def start_ranks(folder: Path, port: int, environment: dict[str, str], **asked: Any) -> list[BaseProcess]:
    """Two ranks as torchrun would start them, in micro-batches of 1."""
    shared = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        **environment,
    }
    return [
        start(
            folder,
            {**shared, "RANK": str(r), "LOCAL_RANK": str(r)},
            **{**SHARED, "micro_batch_size": 1, **asked},
        )
        for r in (0, 1)
    ]


def two_ranks(folder: Path, **asked: Any) -> list[int | None]:
    """Train on two ranks; returns their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [end(process) for process in start_ranks(folder, port, {}, **asked)]


def printed(folder: Path) -> str:
    return folder.with_name(folder.name + ".txt").read_text()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks without dropout; sample 9 of the stream (rank 0, step 3) is poisoned."""
    folder = tmp_path_factory.mktemp("pair") / "run"
    assert two_ranks(folder, task={"dropout": 0.0}) == [0, 0]
    return folder


@pytest.mark.slow
def test_two_ranks_equal_one(pair: Path, tmp_path: Path) -> None:
    train(tmp_path, task=training.ToyTask(dropout=0.0), **SHARED)
    for step, tolerance in ((2, 1e-6), (8, 1e-5)):
        one, two = (checkpoint.read(f / f"checkpoints/step-{step}") for f in (tmp_path, pair))
        for name, expected in {**one.model, **one.optimizer}.items():
            found = {**two.model, **two.optimizer}[name]
            scale = expected.abs().max().item() if expected.is_floating_point() else 0.0
            assert (found - expected).abs().max().item() <= tolerance * scale, f"{name} at step {step}"
    for ours, theirs in zip(rows(pair), rows(tmp_path), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert rows(pair)[-1]["nonfinite"] == 1
    assert rows(pair)[-1]["faults"] == 3


@pytest.mark.slow
def test_a_poisoned_rank_stops_both_from_stepping(pair: Path) -> None:
    before, after = (checkpoint.read(pair / f"checkpoints/step-{step}") for step in (2, 3))
    assert all(torch.equal(after.optimizer[name], value) for name, value in before.optimizer.items())
    assert all(torch.equal(after.model[n], value) for n, value in before.model.items() if n != "steps")


@pytest.mark.slow
def test_faults_of_all_ranks_reach_the_log(pair: Path) -> None:
    assert (pair / "train.log").read_text().count("cannot be read (cut short); another image") == 3


@pytest.mark.slow
def test_a_signal_to_one_rank_stops_both_and_resume_is_exact(pair: Path, tmp_path: Path) -> None:
    plain = {"task": {"dropout": 0.0}}
    folder = tmp_path / "run"
    assert two_ranks(folder, signal_before=4, signal_rank=1, **plain) == [75, 75]
    assert checkpoint.steps(folder / "checkpoints") == [1, 2, 3, 4, 5]
    assert two_ranks(folder, resume=True, **plain) == [0, 0]
    assert fingerprint(folder, 8) == fingerprint(pair, 8)


@pytest.mark.slow
def test_ranks_that_torchrun_restarts_meet_again(pair: Path, tmp_path: Path) -> None:
    """torchrun's agent keeps one store over all attempts, in which the addresses of dead ranks still stand."""
    agent = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder, settings = tmp_path / "run", {"task": {"dropout": 0.0}, "resume": True}
    for attempt in range(3):
        environment = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": str(attempt)}
        asked = {**settings, "seconds": 0.2 if attempt < 2 else 0.0}
        ranks = start_ranks(folder, agent.port, environment, **asked)
        if attempt < 2:
            newest = checkpoint.steps(folder / "checkpoints")
            until = time.monotonic() + 60
            while checkpoint.steps(folder / "checkpoints") == newest and time.monotonic() < until:
                time.sleep(0.01)
            ranks[attempt].kill()  # once rank 0, once rank 1
            assert [end(process) != 0 for process in ranks] == [True, True]
    assert [end(process) for process in ranks] == [0, 0]
    assert fingerprint(folder, 8) == fingerprint(pair, 8)


@pytest.mark.slow
def test_several_ranks_that_cannot_meet(tmp_path: Path) -> None:
    process = start(tmp_path / "run", {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"})
    assert end(process) == 1
    assert "MASTER_ADDR expected, but not set; start them by torchrun" in printed(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_data_that_fail_on_one_rank_end_both_with_the_last_step_saved(
    rank: int, pair: Path, tmp_path: Path
) -> None:
    folder, plain = tmp_path / "run", {"task": {"dropout": 0.0}}
    asked = {"error_before": 4, "signal_rank": rank, "checkpoint_every_steps": None}
    assert two_ranks(folder, **asked, **plain) == [1, 1]
    assert "Transport endpoint is not connected" in told(folder)[rank]
    assert checkpoint.steps(folder / "checkpoints") == [4]
    assert two_ranks(folder, resume=True, **plain) == [0, 0]
    assert fingerprint(folder, 8) == fingerprint(pair, 8)


@pytest.mark.slow
def test_a_batch_that_ranks_cannot_share(tmp_path: Path) -> None:
    assert two_ranks(tmp_path / "run", batch_size=3) == [1, 1]
    assert "a global batch of 3 cannot be shared by 2 ranks" in printed(tmp_path / "run")


def told(folder: Path) -> list[str]:
    return [folder.with_name(f"{folder.name}-rank-{rank}.txt").read_text() for rank in (0, 1)]


@pytest.mark.slow
def test_an_objection_to_bad_files_stops_both_ranks_alike(tmp_path: Path) -> None:
    """Samples 4 and 6, 7 of the stream are of rank 0 and rank 1: only together are they too many."""
    folder = tmp_path / "run"
    assert two_ranks(folder, most_faults=2, checkpoint_every_steps=None) == [2, 2]
    first, second = told(folder)
    assert first == second
    assert "3 of 26 files cannot be read; step 2 of 8, saved in" in first
    assert checkpoint.steps(folder / "checkpoints") == [2]
    assert (folder / "train.log").read_text().count("cannot be read (cut short); another image") == 3


@pytest.mark.slow
@pytest.mark.parametrize("where", ["start", "log", "checkpoint"])
def test_no_rank_waits_for_a_rank_0_that_failed(where: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert two_ranks(folder, fails_in=where) == [1, 1]
    first, second = told(folder)
    assert "No space left on device" in first
    assert second == "LaminaError: rank 0 failed and the run with it; see its message"


@pytest.mark.slow
def test_a_used_folder_is_refused_by_both_ranks(pair: Path) -> None:
    assert two_ranks(pair) == [1, 1]
    first, second = told(pair)
    assert "--resume or start with --overwrite" in first
    assert "rank 0 failed" in second


def rows_so_far(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def wait_for_rows(folder: Path, process: BaseProcess, n: int) -> int:
    """Wait until the run has written so many rows; returns its process id."""
    until = time.monotonic() + 60
    while rows_so_far(folder) < n and process.is_alive() and time.monotonic() < until:
        time.sleep(0.01)
    assert process.pid is not None
    return process.pid


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_current_step(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, seconds=0.1)
    pid = wait_for_rows(folder, process, 2)
    os.kill(pid, number)
    os.kill(pid, number)  # a launcher repeats what the terminal sent: the same request
    assert end(process) == 75
    assert "interrupted by a signal" in printed(folder)
    assert "Traceback" not in printed(folder)
    assert 6 <= checkpoint.steps(folder / "checkpoints")[-1] < 13
    train(folder, resume=True)
    train(tmp_path / "whole")
    assert fingerprint(folder, 13) == fingerprint(tmp_path / "whole", 13)


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, seconds=4.0, log_every_steps=1, checkpoint_every_steps=1)
    pid = wait_for_rows(folder, process, 1)
    begun = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    time.sleep(1.2)
    os.kill(pid, signal.SIGTERM)
    assert end(process) == -signal.SIGTERM
    assert time.monotonic() - begun < 3
    assert "interrupted" not in printed(folder)


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    """The newest checkpoint is always whole, no saved step is lost, and the end is that of a calm run."""
    folder, saved = tmp_path / "run", tmp_path / "run" / "checkpoints"
    chance, newest, wide = random.Random(0), 0, {"width": 20_000}
    # A batch takes its time to come, so that no busy machine lets the run end before it is killed.
    settings = {"task": wide, "max_steps": 40, "checkpoint_every_steps": 1, "resume": True, "seconds": 0.05}
    for trial in range(6):
        process = start(folder, **settings)
        while process.is_alive() and (checkpoint.steps(saved) or [0])[-1] <= newest:
            time.sleep(0.005)
        if trial % 2:
            time.sleep(chance.uniform(0.0, 0.05))
        else:  # in the middle of a save
            while process.is_alive() and not list(saved.glob(".unfinished*")):
                pass
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        last = checkpoint.steps(saved)[-1]
        assert last >= newest
        assert checkpoint.verify(saved / f"step-{last}") is None
        newest = last
    assert end(start(folder, **settings)) == 0
    assert not list(saved.glob(".unfinished*"))
    train(tmp_path / "whole", task=training.ToyTask(**wide), max_steps=40)
    assert fingerprint(folder, 40) == fingerprint(tmp_path / "whole", 40)
