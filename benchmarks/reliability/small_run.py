"""The run that the scripts of this folder interrupt, and what of it must not depend on interruptions."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

from lamina.train.rows import CLOCK_FIELDS

PRETRAIN = shlex.split(
    "pretrain sample:photos?crop=16&most=8 --recipe mae-small --image-size 16 --patch-size 4 --batch-size 16 "
    "--encoder.width 24 --encoder.depth 3 --encoder.heads 2 --decoder.width 16 --decoder.depth 1 "
    "--decoder.heads 2 --fusion.layers all --device cpu --monitor.images 0 --train.keep-checkpoints 3"
)
"""A small MAE with MFF on crops of real photographs, without an end and a folder: `--max-steps`, `--out`."""


def fingerprint(run: Path, step: int) -> dict[str, str]:
    """Digests of the last checkpoint, of the rows, and of the encoder beside them; clocks left out."""
    path = run / "checkpoints" / f"step-{step}"
    found = {
        name: _digest((path / name).read_bytes()) for name in ("model.safetensors", "optimizer.safetensors")
    }
    state = json.loads((path / "state.json").read_text())
    state["train"].pop("seconds")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found["state.json"] = _digest(json.dumps(state, sort_keys=True).encode())
    found["metrics.jsonl"] = _digest(
        json.dumps([{k: v for k, v in row.items() if k not in CLOCK_FIELDS} for row in rows]).encode()
    )
    for file in sorted((run / "encoder").glob("*")):
        found[f"encoder/{file.name}"] = _digest(file.read_bytes())
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
