"""Every file of the corpus has its one outcome; none ends the process, waits, or takes what it must not."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from helpers.hostile_files import Hostile, corpus

CORPUS = corpus()


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(CORPUS) >= 112
    assert len({hostile.name for hostile in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("hostile", CORPUS, ids=lambda hostile: ascii(hostile.name))
def test_each_file_has_its_outcome(
    tmp_path: Path, hostile: Hostile, capfd: pytest.CaptureFixture[str]
) -> None:
    path = hostile.write(tmp_path)
    before, handles = time.thread_time(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0
    right, said = hostile.judge(hostile.read(path))
    assert right, said
    assert time.thread_time() - before < hostile.how.get("max_decode_seconds", 3) + 2
    if handles:
        assert len(os.listdir("/proc/self/fd")) == handles, "a file was left open"
    assert capfd.readouterr().err == ""
