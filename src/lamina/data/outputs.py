"""Folders that lamina wrote (runs, evaluations, tokenizers, studies, ...): their pictures are never data."""

from __future__ import annotations

import os
from collections.abc import Set

from lamina.data.file_names import is_image_name

_MARKS = {
    "recipe.yaml": b"names_sha256:",
    "evaluation.yaml": b"weights_sha256:",
    "config.json": b'"lamina-tokenizer"',
    "study.json": b'"study":',
    "comparison.json": b'"recipes":',
    "pack.json": b'"lamina-pack"',
}
"""The file that makes a folder one of lamina's, and what it holds. Each was written into an empty folder."""
_TRAINING = {"metrics.jsonl", "train.log"}
"""What every training leaves, also one whose settings are damaged."""
_PAGE, _PAGE_MARK = "index.html", b"\xc2\xb7 lamina"
"""What `lamina analyze --out` leaves, which may be any folder: its pictures have a .json beside each."""
_HEAD_BYTES = 1 << 16


def is_output(folder: str, names: Set[str], pages: bool = True) -> bool:
    """Whether lamina made a folder that has entries `names`, with `pages` also by `lamina analyze --out`."""
    if names >= _TRAINING:
        return True
    marks = [(name, _MARKS[name]) for name in _MARKS.keys() & names]
    if pages and _PAGE in names:
        images = [os.path.splitext(name)[0] for name in names if is_image_name(name)]
        if images and all(f"{stem}.json" in names for stem in images):
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
