"""Is a training of several ranks that of one process? Losses of whole weights (DDP) and of shares (FSDP2).

    python benchmarks/ranks.py --steps 200 --ranks 2 4 --json ranks.json

Each way trains the same steps in fp32 on the CPU, under torchrun: one process, DDP and FSDP2 on each number
of ranks. Printed is the largest relative difference of any step's loss and gradient norm from one process.
Then a run that 2 ranks saved in shares at its half goes on with 1, 3 and 4 ranks, in shares and whole, and is
compared too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DATA = "sample:photos?crop=20"
RECIPE = {
    "recipe": "mae-small",
    "image-size": "20",
    "patch-size": "4",
    "encoder.width": "48",
    "encoder.depth": "4",
    "encoder.heads": "4",
    "fusion.layers": "all",
    "decoder.width": "32",
    "decoder.depth": "2",
    "decoder.heads": "2",
    "optim.warmup-epochs": "0.2",
    "optim.clip-grad": "1.0",
    "batch-size": "48",
    "workers": "0",
    "device": "cpu",
    "train.log-every-steps": "1",
    "train.keep-checkpoints": "9",
    "monitor.images": "0",
}
COLUMNS = ("loss", "grad_norm")


def train(out: Path, ranks: int, shard: str, steps: int, *more: str) -> None:
    """A run on so many ranks; its output is shown where it fails."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
        "-m",
    ]
    command += [
        "lamina",
        "pretrain",
        DATA,
        "--out",
        str(out),
        "--max-steps",
        str(steps),
        "--train.shard",
        shard,
    ]
    command += [word for name, value in RECIPE.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [*command, *more],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-4000:])


def rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run, one for each step."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def difference(run: Path, alone: Path) -> dict[str, float]:
    """The largest relative difference of a step from that of one process."""
    pairs = list(zip(rows(run), rows(alone), strict=True))
    return {name: max(abs(a[name] - b[name]) / abs(b[name]) for a, b in pairs) for name in COLUMNS}


def main() -> None:
    """Print a line for each way to train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--resume-on", type=int, nargs="*", default=[1, 3, 4], help="ranks that go on")
    parser.add_argument("--json", type=Path, default=None, help="where the rows are written")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []

    def add(way: str, run: Path) -> None:
        found.append({"way": way, **difference(run, alone)})
        numbers = "  ".join(f"{name} {found[-1][name]:.1e}" for name in COLUMNS)
        print(f"{way:40}{numbers}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder, half = Path(name), options.steps // 2
        alone = folder / "alone"
        train(alone, 1, "none", options.steps)
        for ranks in options.ranks:
            for shard, called in (("none", "DDP"), ("fsdp", "FSDP2")):
                run = folder / f"{shard}-{ranks}"
                train(run, ranks, shard, options.steps, "--checkpoint-every-steps", str(half))
                add(f"{called}, {ranks} ranks", run)
        begun = folder / "fsdp-2"
        for ranks in options.resume_on if begun.is_dir() else ():
            for shard, called in (("none", "DDP"), ("fsdp", "FSDP2")):
                run = folder / f"resumed-{shard}-{ranks}"
                shutil.copytree(begun, run)
                shutil.rmtree(run / "checkpoints" / f"step-{options.steps}")
                train(run, ranks, shard, options.steps, "--checkpoint-every-steps", str(half), "--resume")
                add(f"FSDP2, 2 ranks, then {called}, {ranks} rank(s)", run)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
