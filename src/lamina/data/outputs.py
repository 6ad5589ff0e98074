"""Folders that lamina wrote (runs, evaluations, tokenizers, studies, ...): their pictures are never data."""

from __future__ import annotations

import os
from collections.abc import Collection, Set

_MARKS = {
    "recipe.yaml": b"names_sha256:",
    "evaluation.yaml": b"weights_sha256:",
    "config.json": b'"lamina-tokenizer"',
    "study.json": b'"study":',
    "comparison.json": b'"recipes":',
}
"""The file that makes a folder one of lamina's, and what it holds. Each was written into an empty folder."""
_TRAINING = {"metrics.jsonl", "train.log"}
"""What every training leaves, also one whose settings are damaged."""
_PAGE, _PAGE_MARK = "index.html", b"\xc2\xb7 lamina"
"""What `lamina analyze --out` leaves, which may be any folder: its pictures have a .json beside each."""
_HEAD_BYTES = 1 << 16


def is_output(folder: str, names: Set[str], images: Collection[str] = ()) -> bool:
    """Whether lamina made a folder that has entries `names`, and among them the image files `images`."""
    if names >= _TRAINING:
        return True
    marks = [(name, _MARKS[name]) for name in _MARKS.keys() & names]
    if images and _PAGE in names and all(f"{os.path.splitext(image)[0]}.json" in names for image in images):
        marks.append((_PAGE, _PAGE_MARK))
    return any(_holds(os.path.join(folder, name), mark) for name, mark in marks)


def _holds(file: str, mark: bytes) -> bool:
    if not os.path.isfile(file):  # a pipe of that name would be waited for
        return False
    try:
        with open(file, "rb") as opened:
            return mark in opened.read(_HEAD_BYTES)
    except OSError:
        return False
