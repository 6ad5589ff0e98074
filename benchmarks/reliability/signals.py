"""Does a signal, at any moment, leave a checkpoint of the current step and a run that goes on exactly?

    python benchmarks/reliability/signals.py --trials 40 --json signals.json

Each trial starts a small run with two workers and sends it SIGTERM, SIGINT, SIGHUP or SIGUSR1 in turn, a
random time after its first line; in every other trial all its workers get the signal too, as a scheduler
does. The run must end with exit code 75, its newest checkpoint must be of the step that its last line names,
that step must be at most two beyond the last row at the time of the signal, and `--resume` must end with the
weights, optimiser state, rows and encoder of a run that was left alone. A trial whose run had ended, or taken
its last step and so ends with code 0, when the signal came is repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path

from processes import Command, workers_of
from small_run import PRETRAIN, fingerprint

from lamina.train.checkpoint import steps, verify

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def start(run: Path, options: argparse.Namespace) -> Command:
    """The run in `run`, from its beginning or on from where it was."""
    asked = ["--out", str(run), "--max-steps", str(options.steps), "--workers", "2", "--resume"]
    asked += ["--train.log-every-steps", "1"]
    return Command([*PRETRAIN, *asked], run.with_suffix(".txt"))


def begun(command: Command, run: Path) -> bool:
    """Wait for the first line of train.log; False where the process ended before."""
    while command.running():
        if (run / "train.log").is_file():
            return True
        time.sleep(0.005)
    return False


def rows(run: Path) -> int:
    """How many steps are written down."""
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def trial(number: int, folder: Path, options: argparse.Namespace, length: float) -> dict[str, object] | None:
    """One run that is signalled and goes on; None where nothing was left to do at the signal."""
    chance, run = random.Random(options.seed * 1000 + number), folder / f"trial-{number}"
    sent, to_workers = SIGNALS[number % len(SIGNALS)], number // len(SIGNALS) % 2 == 1
    command = start(run, options)
    if begun(command, run):
        time.sleep(chance.uniform(0, length))
    if not command.running():
        command.wait(0)
        shutil.rmtree(run, ignore_errors=True)
        return None
    workers = workers_of(command.pid) if to_workers else []
    before, at = rows(run), time.monotonic()
    command.send(sent, workers)
    code = command.wait(60)
    ended = time.monotonic() - at
    if code == 0 and before >= options.steps - 1:
        shutil.rmtree(run)
        return None
    log = (run / "train.log").read_text()
    said = re.findall(r"interrupted by a signal: step (\d+) of", log)
    step = int(said[-1]) if said else -1
    newest = (steps(run / "checkpoints") or [-1])[-1]
    whole = newest >= 0 and verify(run / "checkpoints" / f"step-{newest}") is None
    resumed = start(run, options).wait(300)
    exact = resumed == 0 and fingerprint(run, options.steps) == options.expected
    saved = whole and newest == step and before <= step <= before + 2
    found = {"trial": number, "signal": sent.name, "to_workers": to_workers, "code": code, "step": step}
    return {**found, "saved": saved, "exact": exact, "seconds": round(ended, 2)}


def main() -> None:
    """Print a line per trial and the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60, help="steps of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, default=None, help="where the rows are written")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calm = start(folder / "calm", options)
        begun(calm, folder / "calm")
        at = time.monotonic()
        assert calm.wait(600) == 0, calm.errors.read_text()
        length = time.monotonic() - at
        options.expected = fingerprint(folder / "calm", options.steps)
        found: list[dict[str, object]] = []
        number, late = 0, 0
        while len(found) < options.trials:
            row = trial(number, folder, options, length)
            if row is None:
                late += 1
                options.seed += 1
                assert late < 5 * options.trials, "runs end before they are signalled; ask for more steps"
                continue
            number += 1
            found.append(row)
            print(row, flush=True)
    seconds = sorted(float(str(row["seconds"])) for row in found)
    for key, good in (("code", lambda v: v == 75), ("saved", bool), ("exact", bool)):
        print(f"{key}: {sum(map(good, (row[key] for row in found)))} of {len(found)}")
    print(f"seconds from signal to end: median {statistics.median(seconds):.2f}, longest {seconds[-1]:.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
