"""Ranks of one training, each a process of its own with what torchrun tells it.

The processes are forked from one that has imported lamina and computed nothing, which is several times cheaper
than `torchrun` and its own imports; `tests/data/test_bad_files.py` goes through torchrun itself.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import lamina.pretraining  # noqa: F401  (imported once, for all ranks)
from lamina.cli import main

SECONDS = 300
PRELOAD = ["helpers.training", "helpers.ranks"]
"""What the process that all are forked from imports; it is set before the first of them is started."""


def run_ranks(
    function: Callable[..., Any], arguments: Sequence[Any], output: Path, world: int = 2
) -> list[str]:
    """What each of `world` ranks prints while it calls `function(*arguments)`; all of them have to end well.

    Args:
        function: of a module that can be imported, for it is called in other processes.
        output: a folder for what is printed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    files = [output / f"rank-{rank}.txt" for rank in range(world)]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = []
    for rank, file in enumerate(files):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(world)}
        process = context.Process(target=_rank, args=(own, file, function, tuple(arguments)))
        process.start()
        started.append(process)
    for process in started:
        process.join(SECONDS)
    printed = [file.read_text() for file in files]
    assert [process.exitcode for process in started] == [0] * world, printed
    return printed


def _rank(environment: dict[str, str], output: Path, function: Callable[..., Any], arguments: Any) -> None:
    os.environ.update(environment, GLOO_SOCKET_IFNAME="lo")
    torch.set_num_threads(1)
    with output.open("w", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        function(*arguments)


def command(*words: str) -> None:
    """A command of lamina, which has to end with 0."""
    assert main(list(words)) == 0
