"""kill -9 of a real run at random times, some inside a save: what is left, and what a resume makes of it.

    python benchmarks/reliability/kills.py --kills 200 --json kills.json

Each time the run is started with `--resume` and killed: after a random time, or (every other kill) at some
moment after the first temporary file of a save is seen. Then its newest checkpoint must be whole, and its
encoder folder of one step or not there. A run that reaches its end is compared with one that was left alone:
last checkpoint, state.json, rows and encoder bit for bit; no temporary file may be left. Exit code 1 if any
fails.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

from small_run import fingerprint
from soak import start, wait_for_start

from lamina.core.errors import LaminaError
from lamina.interop.load import load_encoder
from lamina.train.checkpoint import steps, verify


def kill(process: BaseProcess, run: Path, rng: random.Random, aimed: bool, seconds: float) -> bool:
    """SIGKILL; whether it hit a save, and the process was still there."""
    if aimed:
        last = time.monotonic() + 20
        while process.is_alive() and time.monotonic() < last and not in_save(run):
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.02)
    else:
        time.sleep(rng.random() * seconds)
    process.kill()
    process.join()
    return process.exitcode == -9 and in_save(run)


def in_save(run: Path) -> bool:
    """Whether something unfinished lies in the run's folder or among its checkpoints."""
    return any(run.glob(".unfinished-*")) or any((run / "checkpoints").glob(".unfinished-*"))


def left(run: Path) -> list[str]:
    """What is wrong right after a kill."""
    wrong = []
    found = steps(run / "checkpoints")
    if found and (reason := verify(run / "checkpoints" / f"step-{found[-1]}")):
        wrong.append(f"newest checkpoint: {reason}")
    if (run / "encoder").exists():
        try:
            load_encoder(run / "encoder")
        except LaminaError as error:
            wrong.append(f"encoder: {error}")
    return wrong


def strays(run: Path) -> list[str]:
    names = [path.name for path in run.rglob("*")]
    return [name for name in names if name.startswith(".unfinished") or name.endswith(".tmp")]


def finish(run: Path, n_steps: int) -> None:
    process = start(run, n_steps, 0)
    process.join()
    assert process.exitcode == 0, run.with_suffix(".txt").read_text()[-2000:]


def main() -> int:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--kills", type=int, default=200, help="kills in all (default 200)")
    parser.add_argument("--steps", type=int, default=200, help="steps of a run (default 200)")
    parser.add_argument("--seconds", type=float, default=3.0, help="longest time to a kill (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the times (default 0)")
    parser.add_argument("--json", type=Path, help="also write the counts there")
    options = parser.parse_args()
    rng, counts, failures = random.Random(options.seed), Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        finish(whole, options.steps)
        expected = fingerprint(whole, options.steps)
        while counts["kills"] < options.kills:
            run = Path(folder, f"run-{counts['runs']}")
            counts["runs"] += 1
            for k in range(8):  # then it may reach its end
                before = (run / "train.log").read_text().count(" at step ") if k else 0
                process = start(run, options.steps, 0)
                wait_for_start(process, run, before)
                counts["kills inside a save"] += kill(process, run, rng, k % 2 == 1, options.seconds)
                counts["kills"] += process.exitcode == -9
                failures += [f"{run.name}, start {k}: {each}" for each in left(run)]
            finish(run, options.steps)
            found = fingerprint(run, options.steps)
            wrong = [name for name in expected if found.get(name) != expected[name]]
            failures += [f"{run.name}: {name} differs" for name in wrong]
            failures += [f"{run.name}: {name} is left over" for name in strays(run)]
            print(dict(counts), failures, flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"counts": counts, "failures": failures}, indent=1) + "\n")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
