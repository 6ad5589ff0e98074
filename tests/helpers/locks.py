"""A process that holds the lock of a folder."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from lamina.core.locking import one_writer

FORK = multiprocessing.get_context("fork")


def hold(folder: str, ready: object, ends: object) -> None:
    with one_writer(Path(folder), "it"):
        ready.set()
        ends.wait(60)
