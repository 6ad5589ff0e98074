"""What becomes of a run whose workers are killed, stopped, or find no room in shared memory?

    python benchmarks/reliability/workers.py --trials 8 --json workers.json

Each trial starts a small run with two workers and, at a random moment after its first line,

- kill: SIGKILL to one worker. The run must end with code 2 and one line that names the process and signal;
- stop: SIGSTOP to both. With a limit of 5 s it must end with code 2 and one line that names them;
- stop, term: the same, and SIGTERM to the run. It must end with code 75;
- shm: /dev/shm is a file system of 64 KiB, in a mount namespace of its own (`unshare`, where that is
  allowed). The run must end with code 0 and say once that batches travel through a pipe.

In all of them no process may be left, no traceback printed, the newest checkpoint must be of the last step
that was taken, and `--resume` (for shm: the run itself) must end with the weights, optimiser state, rows and
encoder of a run that was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import Command, workers_of
from signals import begun, rows
from small_run import PRETRAIN, fingerprint

from lamina.train.checkpoint import steps

LIMIT_SECONDS = 5
CODES = {"kill": 2, "stop": 2, "stop, term": 75}
GOOD = ("code", "line", "saved", "none left", "exact")
LINES = {
    "kill": r"lamina: a data worker died \(process \d+, SIGKILL\): .*; step \d+ of \d+ is saved in .*\n",
    "stop": rf"lamina: no batch has come from the data workers for {LIMIT_SECONDS} s \(worker process \d+ is "
    r"stopped.*; step \d+ of \d+ is saved in .*\n",
    "stop, term": "",
}


def arguments(run: Path, options: argparse.Namespace, limit: float = LIMIT_SECONDS) -> list[str]:
    """The run in `run`, from its beginning or on from where it was."""
    asked = ["--out", str(run), "--max-steps", str(options.steps), "--workers", "2", "--resume"]
    asked += ["--train.log-every-steps", "1", "--data.worker-timeout-seconds", str(limit)]
    return [*PRETRAIN, *asked]


def disturb(kind: str, command: Command, chance: random.Random) -> list[int]:
    """Kill or stop workers; returns those there were, none where the run ended before."""
    while command.running() and len(workers := workers_of(command.pid)) == 2:
        if kind == "kill":
            os.kill(chance.choice(workers), signal.SIGKILL)
            return workers
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        if kind == "stop, term":
            time.sleep(chance.uniform(0, 1))
            command.send(signal.SIGTERM)
        return workers
    return []


def trial(kind: str, number: int, folder: Path, options: argparse.Namespace) -> dict[str, object] | None:
    """One run that is disturbed and goes on; None where it ended before."""
    chance, run = (
        random.Random(f"{options.seed} {kind} {number}"),
        folder / f"{kind[-4:]}-{number}-{options.seed}",
    )
    # A signal is acted on 5 s into a wait, which is the limit of the others.
    limit = 60 if kind == "stop, term" else LIMIT_SECONDS
    command = Command(arguments(run, options, limit), run.with_suffix(".txt"))
    workers: list[int] = []
    if begun(command, run):
        while command.running() and not rows(run):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.6 * options.length))
        workers = disturb(kind, command, chance)
    at = time.monotonic()
    code = command.wait(LIMIT_SECONDS + 60)
    seconds = time.monotonic() - at
    if not workers or code == 0:
        return None
    errors = command.errors.read_text()
    newest = (steps(run / "checkpoints") or [-1])[-1]
    left = [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    resumed = Command(arguments(run, options), run.with_suffix(".txt")).wait(300)
    good = {
        "code": code == CODES[kind],
        "line": re.fullmatch(LINES[kind], errors) is not None,
        "saved": newest >= rows_before(run, newest),
        "none left": not left,
        "exact": resumed == 0 and fingerprint(run, options.steps) == options.expected,
    }
    return {"kind": kind, "trial": number, "exit": code, **good, "seconds": round(seconds, 2)}


def rows_before(run: Path, newest: int) -> int:
    """The last step that train.log tells of before the run was gone on with."""
    first = (run / "train.log").read_text().partition("going on at step")[0]
    return max((int(step) for step in re.findall(r" step (\d+)  ", first)), default=newest)


def small_memory(number: int, folder: Path, options: argparse.Namespace) -> dict[str, object] | None:
    """One run in a mount namespace with a small /dev/shm; None where there can be none."""
    run = folder / f"shm-{number}"
    inner = shlex.join([sys.executable, "-m", "lamina", *arguments(run, options)])
    script = f"mount -t tmpfs -o size=64k tmpfs /dev/shm && echo mounted && exec {inner}"
    began = time.monotonic()
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, timeout=300, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"no small /dev/shm: {error}")
        return None
    if not done.stdout.startswith("mounted"):
        print(f"no small /dev/shm: {done.stderr.strip()}")
        return None
    log = (run / "train.log").read_text()
    good = {
        "code": done.returncode == 0,
        "line": log.count("shared memory has no room for a batch") == 1 and "Traceback" not in done.stderr,
        "saved": True,
        "none left": True,
        "exact": done.returncode == 0 and fingerprint(run, options.steps) == options.expected,
    }
    seconds = round(time.monotonic() - began, 2)
    return {"kind": "shm", "trial": number, "exit": done.returncode, **good, "seconds": seconds}


def main() -> None:
    """Print a line per trial and the sums."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=8, help="of each kind; of shm at most two")
    parser.add_argument("--steps", type=int, default=100, help="steps of each run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, default=None, help="where the rows are written")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calm = Command(arguments(folder / "calm", options), folder / "calm.txt")
        begun(calm, folder / "calm")
        at = time.monotonic()
        assert calm.wait(600) == 0, calm.errors.read_text()
        options.length, options.expected = time.monotonic() - at, fingerprint(folder / "calm", options.steps)
        for kind in CODES:
            number = 0
            while number < options.trials:
                row = trial(kind, number, folder, options)
                if row is None:
                    options.seed += 1
                    continue
                number += 1
                found.append(row)
                print(row, flush=True)
        for number in range(min(options.trials, 2)):
            if (row := small_memory(number, folder, options)) is not None:
                found.append(row)
                print(row, flush=True)
    for kind in (*CODES, "shm"):
        of = [row for row in found if row["kind"] == kind]
        sums = {
            key: sum(bool(row[key]) for row in of) for key in ("code", "line", "saved", "none left", "exact")
        }
        longest = max((float(str(row["seconds"])) for row in of), default=0.0)
        print(f"{kind}: of {len(of)}", sums, f"longest {longest:.1f} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
