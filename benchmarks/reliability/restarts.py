"""Does a run of several ranks survive the loss of one? `torchrun --max-restarts` and kill -9 of a rank.

    python benchmarks/reliability/restarts.py --trials 6 --kills 3 --json restarts.json

Each trial starts a run on two ranks of the CPU under torchrun, kills a rank (the first and the second in
turn) a random time after a new checkpoint, as often as asked, and lets the launch end by itself. It has
completed where torchrun ends with 0 in the time limit, and is exact where its last weights, optimiser state
and rows are those of a run that was left alone. With `--shard fsdp` the ranks hold shares of the weights.
With `--no-resume` a trial kills once, and is right where the launch then ends by itself with another code
than 0.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from small_run import PRETRAIN, fingerprint

from lamina.train.checkpoint import steps


def launch(out: Path, options: argparse.Namespace, restarts: int) -> subprocess.Popen[bytes]:
    """The run in `out` on two ranks, in a session of its own, its output in a file beside it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.2", "-m", "lamina"]
    command += [*PRETRAIN, "--out", str(out), "--max-steps", str(options.steps), "--workers", "0"]
    command += ["--checkpoint-every-steps", "10", "--train.shard", options.shard]
    command += [] if options.no_resume else ["--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with out.with_suffix(".txt").open("ab") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def ranks_of(launcher: int) -> list[int]:
    """Process ids of the ranks, in their order."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except (OSError, ValueError, IndexError):
            continue
        rank = next((int(e[5:]) for e in environment if e.startswith(b"RANK=")), None)
        if rank is not None:
            found.append((rank, int(folder.name)))
    return [process for _, process in sorted(found)]


def kill_a_rank(launcher: subprocess.Popen[bytes], run: Path, which: int, chance: random.Random) -> bool:
    """Wait for a checkpoint that was not there, and kill; False where the run ended before."""
    before = steps(run / "checkpoints")
    while launcher.poll() is None:
        time.sleep(0.02)
        if steps(run / "checkpoints") != before and len(ranks := ranks_of(launcher.pid)) == 2:
            time.sleep(chance.uniform(0, 0.3))
            os.kill(ranks[which], signal.SIGKILL)
            return True
    return False


def trial(
    number: int, folder: Path, options: argparse.Namespace, expected: dict[str, str]
) -> dict[str, object]:
    """One launch whose ranks are killed."""
    chance, run, started = random.Random(number), folder / f"trial-{number}", time.monotonic()
    launcher = launch(run, options, options.kills)
    try:
        kills = sum(kill_a_rank(launcher, run, (number + i) % 2, chance) for i in range(options.kills))
        code: int | None = launcher.wait(options.limit_seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        if launcher.poll() is None:
            os.killpg(launcher.pid, signal.SIGKILL)
    if options.no_resume:
        seconds = round(time.monotonic() - started, 1)
        return {"trial": number, "kills": kills, "code": code, "ended": bool(code), "seconds": seconds}
    exact = code == 0 and fingerprint(run, options.steps) == expected
    return {
        "trial": number,
        "kills": kills,
        "code": code,
        "exact": exact,
        "seconds": round(time.monotonic() - started, 1),
    }


def calm_run(run: Path, options: argparse.Namespace) -> dict[str, str]:
    """What a run leaves of which no rank is killed."""
    if launch(run, options, 0).wait():
        sys.exit(run.with_suffix(".txt").read_text()[-2000:])
    return fingerprint(run, options.steps)


def main() -> None:
    """Print a line per trial, and how many completed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--kills", type=int, default=3, help="ranks killed in each trial, one after another")
    parser.add_argument("--steps", type=int, default=400, help="steps of each run")
    parser.add_argument("--shard", choices=["none", "fsdp"], default="none", help="train.shard of the runs")
    parser.add_argument("--no-resume", action="store_true", help="leave --resume out: a launch has to end")
    parser.add_argument("--limit-seconds", type=float, default=600, help="longest wait after the last kill")
    parser.add_argument("--json", type=Path, default=None, help="where the rows are written")
    options = parser.parse_args()
    if options.no_resume:
        options.kills = 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = {} if options.no_resume else calm_run(folder / "calm", options)
        rows = []
        for number in range(options.trials):
            rows.append(trial(number, folder, options, expected))
            print(rows[-1], flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.no_resume:
        print(f"{sum(bool(row['ended']) for row in rows)} of {len(rows)} launches ended by themselves")
        return
    completed, exact = (sum(bool(v) for v in column) for column in zip(
        *((row["code"] == 0, row["exact"]) for row in rows), strict=True
    ))  # fmt: skip
    kills = sum(int(str(row["kills"])) for row in rows)
    print(f"{completed} of {len(rows)} launches completed after {kills} kills; {exact} of them bit-identical")


if __name__ == "__main__":
    main()
