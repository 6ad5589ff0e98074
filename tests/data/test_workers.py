"""Worker processes that die, stop, or find no room in shared memory: one line, in time, and nothing left over."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lamina.core.batch import Batch, Objects
from lamina.core.errors import LaminaError
from lamina.data.loading.dataloader import StepLoader, in_order
from lamina.data.loading.sampler import Stream
from lamina.data.options import DataOptions

torch.set_num_threads(1)


class Numbers(Dataset[Batch]):
    """Batches of all that a batch may hold; the images are the indices."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __getitems__(self, samples: Sequence[Any]) -> Batch:
        time.sleep(self.seconds)
        indices = torch.tensor([s[1] if isinstance(s, tuple) else s for s in samples])
        images = indices.to(torch.uint16).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()
        mask = indices[:, None] % torch.arange(1, 5) == 0
        objects = tuple(
            Objects(
                torch.full((int(i) % 3, 4), float(i)), i.repeat(int(i) % 3), torch.zeros(0, 4, 4) > 0, mask[0]
            )
            for i in indices
        )
        return Batch(images, indices, mask, indices, (), images, objects)


def tensors(batch: Batch) -> list[Tensor]:
    found: list[Tensor] = []
    batch.each(lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(tensors(a), tensors(b), strict=True):
            assert x.dtype == y.dtype
            assert torch.equal(x, y)


CHUNKS = [range(i, i + 5) for i in range(0, 40, 5)]


@pytest.fixture(autouse=True)
def nothing_is_left_over() -> Iterator[None]:
    yield
    until = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def no_room(tensor: Tensor) -> Tensor:
    if tensor.numel() > 8:  # the small ones have room
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"
        )
    return tensor


def test_a_full_shared_memory_changes_nothing_and_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers are forked, and find memory full as this process has it."""
    want = list(in_order(Numbers(), CHUNKS, 0))
    monkeypatch.setattr(Tensor, "share_memory_", no_room)
    with caplog.at_level(logging.WARNING, "lamina"):
        assert_same(list(in_order(Numbers(), CHUNKS, 2, 20.0)), want)
    (record,) = caplog.records
    assert "No space left on device" in record.getMessage()
    assert "--shm-size" in record.getMessage()


def send(number: signal.Signals, how_many: int) -> None:
    for worker in multiprocessing.active_children()[:how_many]:
        os.kill(worker.pid or 0, number)


def read_until_signalled(
    batches: Iterator[Batch], number: signal.Signals, how_many: int, seconds: float
) -> None:
    """Read on after a signal was sent to workers; never ends of itself."""
    for n, _ in enumerate(batches):
        if n == 3:
            time.sleep(seconds)
            send(number, how_many)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_at_any_moment_is_one_line(number: signal.Signals) -> None:
    chance = random.Random(0)
    for _ in range(3):
        begun, batches = time.monotonic(), in_order(Numbers(0.005), CHUNKS * 1000, 2)
        with pytest.raises(LaminaError) as caught:
            read_until_signalled(batches, number, 1, chance.uniform(0, 0.02))
        assert re.match(rf"a data worker died \(process \d+, {number.name}\): ", str(caught.value))
        assert "\n" not in str(caught.value)
        assert time.monotonic() - begun < 20


def test_stopped_workers_are_noticed_within_the_limit_and_named() -> None:
    options = DataOptions(workers=2, worker_timeout_seconds=1.5)
    batches = StepLoader(Numbers(), Stream(40, 0, 5), options).batches(0, 4000)
    begun = time.monotonic()
    with pytest.raises(LaminaError, match=r"no batch has come from the data workers for 1.5 s") as caught:
        read_until_signalled(batches, signal.SIGSTOP, 2, 0.0)
    assert time.monotonic() - begun < 15
    assert len(re.findall(r"worker process \d+ is stopped", str(caught.value))) == 2


def test_a_pass_that_ends_beside_a_stopped_worker_ends() -> None:
    """Python waits for its children at its end, and a stopped one hears no SIGTERM."""
    batches = in_order(Numbers(), CHUNKS, 2)
    first = next(batches)
    send(signal.SIGSTOP, 2)
    begun = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - begun < 5
    assert len(first) == 5


def test_workers_that_cannot_be_started_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(process: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refuse)
    with pytest.raises(
        LaminaError, match=r"cannot be started \(Resource temporarily unavailable.*0 uses none"
    ):
        list(in_order(Numbers(), CHUNKS, 2))


def test_an_error_of_the_reader_is_itself() -> None:
    class Bad(Numbers):
        def __getitems__(self, samples: Sequence[Any]) -> Batch:
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        list(in_order(Bad(), CHUNKS, 1))


def test_workers_that_are_busy_are_said_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("lamina.data.loading.worker_pool.WARN_AFTER_SECONDS", 0.5)
    with caplog.at_level(logging.WARNING, "lamina"):
        assert len(list(in_order(Numbers(1.2), CHUNKS[:1], 1))) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for data for 0 s: 1 worker processes are busy"
    ]


def test_no_descriptor_left_to_share_by_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left(*given: object) -> bytes:
        raise OSError(24, "Too many open files")

    want = list(in_order(Numbers(), CHUNKS, 0))
    monkeypatch.setattr("multiprocessing.reduction.DupFd", none_left)
    assert_same(list(in_order(Numbers(), CHUNKS, 2, 20.0)), want)
    assert [r.getMessage().count("Too many open files") for r in caplog.records] == [1]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts descriptors as Linux lists them")
def test_no_descriptor_and_no_thread_is_left() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    list(in_order(Numbers(), CHUNKS, 2))
    before = count()
    for _ in range(3):
        list(in_order(Numbers(), CHUNKS, 2))
    assert count() <= before + 3


ORPHANS = """
import multiprocessing, sys
from lamina.data.options import DataOptions
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    source = open_source("sample:photos?crop=16&most=2")
    loader = TrainLoader(source, DataOptions(workers=2), seed=0, batch_size=4, image_size=(16, 16))
    for batch in loader.batches(0, 10**6):
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_no_worker_outlives_a_run_that_is_killed(method: str, tmp_path: Path) -> None:
    """By SIGKILL, as the system does when memory is short; under forkserver no worker is the run's own child."""
    (tmp_path / "orphans.py").write_text(ORPHANS)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "orphans.py"), method]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2
        process.kill()
    until = time.monotonic() + 60
    while (left := [pid for pid in workers if running(pid)]) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
