"""What becomes of files that are damaged, lie, are too large or take too long: outcome, time and memory.

    python benchmarks/reliability/hostile_files.py --json hostile.json
    python benchmarks/reliability/hostile_files.py --without-large

The files are those of tests/helpers/hostile_files.py, under the default limits of `data.max_pixels`,
`data.max_decode_mb` and `data.max_decode_seconds` unless the corpus names smaller ones. Each is read in a
process of its own, forked from one in which everything is imported. Seconds are those of its processor, one
thread; memory is the highest beyond what that process had before (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from helpers.hostile_files import Hostile, corpus, large
from lamina.data.decode.decode import decode_file
from lamina.data.options import Decoding

WAIT_SECONDS = 120


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measured(hostile: Hostile, path: Path) -> dict[str, Any]:
    """Read it here, and say what it took."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is what there is now
    before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    found = hostile.read(path)
    seconds, peak = time.process_time() - cpu, memory("VmHWM") - before
    wall = time.perf_counter() - start
    right, said = hostile.judge(found)
    return {
        "file": ascii(hostile.name)[1:-1],
        "outcome": said,
        "as_stated": right,
        "seconds": round(seconds, 3),
        "wall_seconds": round(wall, 3),
        "peak_mib": round(peak / 2**20, 1),
    }


def in_a_process(hostile: Hostile, folder: Path) -> dict[str, Any]:
    """As `measured`, in a child; one that dies, or never ends, is an outcome as well."""
    path = hostile.write(folder)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(measured(hostile, path)).encode())
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    end = time.monotonic() + WAIT_SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, 9)
            os.waitpid(child, 0)
            break
        time.sleep(0.002)
    with os.fdopen(reading, "rb") as file:
        text = file.read()
    if path.is_file() and not path.is_symlink():
        path.unlink()
    lost = {"file": ascii(hostile.name)[1:-1], "outcome": "the process died or hung", "as_stated": False}
    return json.loads(text) if text else {**lost, "seconds": 0.0, "wall_seconds": 0.0, "peak_mib": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--without-large", action="store_true", help="leave out files of gigabytes and minutes"
    )
    parser.add_argument("--json", type=Path, help="also write all rows to this file")
    options = parser.parse_args()
    files = corpus() + ([] if options.without_large else list(large()))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder))
        print(f"{'file':44}{'s':>8}{'MiB':>9}  outcome")
        for hostile in files:
            rows.append(in_a_process(hostile, Path(folder)))
            row, mark = rows[-1], "" if rows[-1]["as_stated"] else "NOT AS STATED: "
            took = f"{row['seconds']:8.2f}{row['peak_mib']:9.1f}"
            print(f"{row['file'][:43]:44}{took}  {mark}{row['outcome'][:90]}", flush=True)
    wrong = [row["file"] for row in rows if not row["as_stated"]]
    slowest, highest = (max(rows, key=lambda row: row[key]) for key in ("seconds", "peak_mib"))
    print(
        f"\n{len(rows)} files, {len(rows) - len(wrong)} as stated; slowest {slowest['file']} "
        f"{slowest['seconds']:.1f} s; highest {highest['file']} {highest['peak_mib']:,.0f} MiB"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    sys.exit(1 if wrong else 0)


def warm_up(folder: Path) -> None:
    """Import what decoders import when they are first used, so that no file is charged for it."""
    for hostile in corpus():
        if hostile.name in (
            "plain-pages.tif",
            "16-bit-rgb-planar-1.tif",
            "orientation-6.png",
            "key-of-16-bits.png",
        ):
            decode_file(str(hostile.write(folder)), Decoding())


if __name__ == "__main__":
    main()
