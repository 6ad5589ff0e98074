"""Arguments of a small run for tests of unreadable files."""

from __future__ import annotations

from pathlib import Path

TINY = {
    "recipe": "mae-small",
    "image-size": "16",
    "patch-size": "4",
    "batch-size": "8",
    "max-steps": "9",
    "workers": "0",
    "device": "cpu",
    "encoder.width": "24",
    "encoder.depth": "3",
    "encoder.heads": "2",
    "decoder.width": "16",
    "decoder.depth": "1",
    "decoder.heads": "2",
    "fusion.layers": "all",
    "data.bad-files-min": "5",
    "data.bad-files-max-share": "0",
}


def arguments(photos: Path, out: Path, **changed: str) -> list[str]:
    named = TINY | {name.replace("_", "-"): value for name, value in changed.items()}
    return ["pretrain", str(photos), "--out", str(out)] + [w for k, v in named.items() for w in (f"--{k}", v)]
