"""A disk that fills up at many points of a run: what is said, what is left, and does it go on?

    python benchmarks/reliability/disk_full.py --points 40 --json disk_full.json

The run is trained whole, which says how much room it takes. Then, for each of `--points` sizes from nothing
to that, it is trained on a disk of that size: a tmpfs where this process may mount one (Linux, root), else a
limit on the size of single files (RLIMIT_FSIZE). Counted are ends without exit code 2, messages that are not
one line with a path in it, tracebacks, checkpoints that do not verify, and runs that do not go on, once
there is room, to the last checkpoint, rows and encoder of the whole run. On the smallest disks there is
nothing to go on with: then the same command, with `--resume`, begins.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from small_run import PRETRAIN, fingerprint

from lamina.train.checkpoint import steps, verify

N_STEPS = 6


def child(run: Path, output: Path, file_limit: int | None) -> None:
    """The command line in a process that has imported everything; its output goes to a file elsewhere."""
    from lamina.cli.entry import main

    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    torch.set_num_threads(1)
    arguments = ["--out", str(run), "--max-steps", str(N_STEPS), "--workers", "0", "--resume"]
    sys.exit(main([*PRETRAIN, *arguments, "--checkpoint-every-steps", "2", "--train.log-every-steps", "1"]))


def train(run: Path, output: Path, file_limit: int | None = None) -> tuple[int | None, str]:
    """The exit code and what was said."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lamina.cli.entry", "lamina.pretraining", "lamina.api"])
    process = context.Process(target=child, args=(run, output, file_limit))
    process.start()
    process.join(300)
    process.kill()
    return process.exitcode, output.read_text(errors="replace")


def may_mount(place: Path) -> bool:
    """Whether a tmpfs can be mounted here."""
    asked = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True
    )
    return asked.returncode == 0 and subprocess.run(["umount", str(place)], check=False).returncode == 0


@contextmanager
def disk(place: Path, size: int, mounted: bool) -> Iterator[None]:
    """`place` as a disk of `size` bytes, where it can be mounted."""
    place.mkdir()
    if mounted:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)
        shutil.rmtree(place)


def judge(place: Path, size: int, mounted: bool, whole: dict[str, str], output: Path) -> Counter[str]:
    """What happened on a disk of this size: names of what went as it should, and of what did not."""
    found: Counter[str] = Counter()
    with disk(place, size, mounted):
        run = place / "run"
        code, said = train(run, output, None if mounted else size)
        found["full"] += code != 0
        complaints = [line for line in said.splitlines() if line.startswith("lamina:")]
        if code != 0:
            found["exit code is not 2"] += code != 2
            found["not one line"] += len(complaints) != 1
            found["no path in the message"] += not any(str(place) in line for line in complaints)
            found["traceback"] += "Traceback" in said
        folder = run / "checkpoints"
        kept = steps(folder)
        found["with a checkpoint"] += bool(kept) and code != 0
        found["damaged checkpoints"] += sum(verify(folder / f"step-{k}") is not None for k in kept)
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
        code, again = train(run, output)
        found["does not go on"] += code != 0
        found["other result"] += code == 0 and fingerprint(run, N_STEPS) != whole
        found["left over"] += code == 0 and any(f.name.startswith(".") for f in run.rglob("*"))
    problems = {k: n for k, n in found.items() if n and k not in ("full", "with a checkpoint")}
    if problems:
        print(f"{size} bytes: {problems}\n{said}\n{again}", flush=True)
    return found


def main() -> None:
    """Fill the disk at each point and print what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=40, help="sizes of the disk, evenly spread")
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, output = Path(folder) / "disk", Path(folder) / "output.txt"
        mounted = may_mount(Path(folder))
        with disk(place, 1 << 28, mounted):
            code, said = train(place / "run", output)
            assert code == 0, said
            whole = fingerprint(place / "run", N_STEPS)
            files = [f.stat().st_size for f in (place / "run").rglob("*") if f.is_file()]
        largest = sum(files) + (3 << 20) if mounted else max(files)  # a checkpoint wants some room to spare
        counts: Counter[str] = Counter()
        for i in range(arguments.points):
            size = max(4096 if mounted else 1, largest * i // arguments.points)
            counts.update(judge(place, size, mounted, whole, output))
    told = {"disk": "tmpfs" if mounted else "RLIMIT_FSIZE", "points": arguments.points, **counts}
    print(json.dumps(told, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
