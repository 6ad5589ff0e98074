"""One run, interrupted again and again: is its end that of a run that was left alone?

    python benchmarks/reliability/soak.py --interruptions 500 --json soak.json

Each time the run is started with `--resume`, and after a random time it gets SIGTERM, SIGINT or SIGKILL, with
workers and without in turn. Counted are the ends that are not what the signal asks for, saved steps that are
lost, and files that are left over; the run then goes on to its end, and its last checkpoint, rows and encoder
are compared with those of a run that was left alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from small_run import PRETRAIN, fingerprint

from lamina.train.checkpoint import steps, verify

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
EXPECTED = {signal.SIGTERM: 75, signal.SIGINT: 75, signal.SIGKILL: -signal.SIGKILL}


def child(arguments: list[str], output: Path) -> None:
    """The command line in a process that has imported everything; its output is added to a file."""
    from lamina.cli.entry import main

    with output.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.exit(main(arguments))


def start(run: Path, n_steps: int, workers: int) -> BaseProcess:
    """The run in `run`, begun or gone on with."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lamina.cli.entry", "lamina.pretraining", "lamina.api"])
    arguments = [*PRETRAIN, "--out", str(run), "--max-steps", str(n_steps), "--workers", str(workers)]
    arguments += ["--checkpoint-every-steps", "5", "--resume"]
    process = context.Process(target=child, args=(arguments, run.with_suffix(".txt")))
    process.start()
    return process


def wait_for_start(process: BaseProcess, run: Path, before: int) -> None:
    """Wait until the run has said once more where it begins; signals before that find no run."""
    log = run / "train.log"
    while process.is_alive() and (log.read_text().count(" at step ") if log.exists() else 0) <= before:
        time.sleep(0.01)


def interrupt(run: Path, n_steps: int, number: int, chance: random.Random) -> dict[str, object] | None:
    """Start the run, end it by a signal; None where it reached its end before."""
    log, folder = run / "train.log", run / "checkpoints"
    begun, newest = log.read_text().count(" at step ") if log.exists() else 0, (steps(folder) or [0])[-1]
    process = start(run, n_steps, workers=2 * (number % 2))
    wait_for_start(process, run, begun)
    time.sleep(chance.expovariate(1 / 0.4))
    asked = chance.choice(SIGNALS)
    if process.is_alive() and process.pid is not None:
        os.kill(process.pid, asked)
    process.join(120)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    if process.exitcode == 0:
        return None
    found = (steps(folder) or [0])[-1]
    return {
        "signal": asked.name,
        "code": process.exitcode,
        "as asked": not hung and process.exitcode == EXPECTED[asked],
        "lost a saved step": found < newest,
        "newest is whole": not found or verify(folder / f"step-{found}") is None,
        "step": found,
    }


def main() -> None:
    """Print counts, and whether the end is the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interruptions", type=int, default=100)
    parser.add_argument("--steps", type=int, default=None, help="steps of the run; unset: 3 an interruption")
    parser.add_argument(
        "--json", type=Path, default=None, help="where a row for each interruption is written"
    )
    options = parser.parse_args()
    chance, rows = random.Random(0), []
    last = options.steps or 3 * options.interruptions
    with tempfile.TemporaryDirectory() as name:
        run, calm = Path(name) / "soak", Path(name) / "calm"
        while len(rows) < options.interruptions:
            row = interrupt(run, last, len(rows), chance)
            if row is None:
                break
            rows.append(row)
            if len(rows) % 10 == 0:
                print(f"{len(rows)} interruptions, step {row['step']}", flush=True)
        for folder in (run, calm):
            process = start(folder, last, workers=0)
            process.join()
            if process.exitcode:
                sys.exit(folder.with_suffix(".txt").read_text()[-2000:])
        same = fingerprint(run, last) == fingerprint(calm, last)
        left = [str(path.relative_to(run)) for path in run.rglob("*") if "unfinished" in path.name]
    odd = {key: sum(not row[key] for row in rows) for key in ("as asked", "newest is whole")}
    print(f"{len(rows)} interruptions ({dict(Counter(row['signal'] for row in rows))}) in {last} steps")
    print(
        f"ended otherwise than asked {odd['as asked']}, newest checkpoint damaged {odd['newest is whole']}, "
    )
    print(
        f"saved steps lost {sum(bool(row['lost a saved step']) for row in rows)}, files left over {len(left)}"
    )
    print(f"the end is {'bit-identical' if same else 'DIFFERENT'} from that of a run that was left alone")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "same": same, "left": left}, indent=1) + "\n")


if __name__ == "__main__":
    main()
