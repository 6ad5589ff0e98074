"""Arguments of a small run for tests of unreadable files."""

from __future__ import annotations

from pathlib import Path

from helpers.options import TINY_RUN, words

TINY = TINY_RUN | {
    "batch-size": 8,
    "max-steps": 9,
    "encoder.depth": 3,
    "data.bad-files-min": 5,
    "data.bad-files-max-share": 0,
}


def arguments(photos: Path, out: Path, **changed: str) -> list[str]:
    named = TINY | {name.replace("_", "-"): value for name, value in changed.items()}
    return ["pretrain", str(photos), "--out", str(out), *words(named)]
