"""Everything that is to be measured on a GPU, in at most 8 minutes.

    python benchmarks/gpu.py                       # on the GPU; needs the extras bench and dev
    python benchmarks/gpu.py --minutes 4 --out out/gpu
    python benchmarks/gpu.py --parts machine step-b
    python benchmarks/gpu.py --rehearse            # tiny, on the CPU: shows that each part runs

Parts, in this order: the machine; the tests with the mark `cuda`; the training step at S, B and L in bf16,
interleaved with the peers that are installed, with its memory, its rate of operations and attention that is
not fused; the loader beside ImageFolder; a short pair of runs, MAE and MAE + MFF; the step compiled. Each
part is a process of its own that is stopped at its limit, so that one that fails or hangs costs the others
nothing, and `gpu.json` and `gpu.md` in the folder `--out` are written after each. A part that no longer fits
into the time is left out, which the page says. In a rehearsal all parts share one process.

MFU is the share of the measured rate of large bf16 matrix products, and of the data sheet's where lamina
knows the GPU. Exit code 1 where a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import gpu_parts as parts
from lamina.plan.gpus import GPUS

SPARE_SECONDS = 5.0


class Part(NamedTuple):
    """A part: what measures it, the seconds it may take, and with how few left it is not begun."""

    measure: Callable[[parts.Setting], dict[str, Any]]
    most: float
    least: float


PARTS = {
    "machine": Part(parts.machine, 30, 10),
    "tests": Part(parts.tests, 180, 60),
    "step-b": Part(parts.step_of("b"), 60, 25),
    "step-s": Part(parts.step_of("s"), 60, 25),
    "step-l": Part(parts.step_of("l"), 70, 30),
    "loader": Part(parts.loading, 60, 30),
    "pair": Part(parts.pair, 90, 40),
    "compile-b": Part(parts.compile_of("b"), 90, 60),
    "compile-s": Part(parts.compile_of("s"), 90, 60),
}


def in_process(name: str, out: Path, limit: float) -> dict[str, Any]:
    """A part in a process of its own; what it measured, or why there is nothing."""
    result = out / f"{name}.json"
    result.unlink(missing_ok=True)
    command, log_file = [sys.executable, __file__, "--only", name, "--out", str(out)], out / f"{name}.log"
    with log_file.open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            code: object = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its workers too
            process.wait()
            code = f"stopped after {limit:.0f} s"
    if code or not result.is_file():
        return {
            "failed": code or "it wrote nothing",
            "end of its log": log_file.read_text(errors="replace")[-4000:],
        }
    return json.loads(result.read_text())  # type: ignore[no-any-return]


def measure(name: str, out: Path, limit: float, rehearse: bool) -> dict[str, Any]:
    """A part's numbers, with the seconds that it took."""
    started = time.perf_counter()
    found = PARTS[name].measure(parts.REHEARSAL) if rehearse else in_process(name, out, limit)
    return {**found, "seconds of this part": time.perf_counter() - started}


def lines_of(value: Any, indent: int = 0) -> list[str]:
    """Nested numbers as a list of Markdown; medians with their quartiles on one line."""
    if isinstance(value, dict) and value.keys() == {"median", "low", "high"}:
        return [f"{value['median']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"]
    if not isinstance(value, dict):
        return [f"{value:.4g}" if isinstance(value, float) else str(value)]
    lines = []
    for name, part in value.items():
        below = lines_of(part, indent + 1)
        one = not isinstance(part, dict) or (len(below) == 1 and not below[0].lstrip().startswith("-"))
        lines += [f"{'  ' * indent}- {name}: {below[0]}"] if one else [f"{'  ' * indent}- {name}:", *below]
    return lines or ["none"]


def page(found: dict[str, Any], rehearse: bool) -> str:
    """The page, a section for each part."""
    title = "# Rehearsal on a CPU: these numbers mean nothing" if rehearse else "# Measured on a GPU"
    lines = [title, "", f"    {' '.join(['python', *found['command']])}", ""]
    for name, part in found["parts"].items():
        lines += [f"## {name}", "", *lines_of(part), ""]
    return "\n".join(lines)


def with_mfu(found: dict[str, Any]) -> dict[str, Any]:
    """The share of the GPU's rate that each step reaches, once the machine is known."""
    machine = found.get("machine", {})
    peaks = {"of measured products": machine.get("bf16 TFLOP/s")}
    known = [gpu for gpu in GPUS if gpu.name.upper() in str(machine.get("GPU", "")).upper().split()]
    if known:
        peaks[f"of the data sheet of {known[0].title}"] = known[0].tflops_half
    for part in found.values():
        if "TFLOP/s" in part:
            part["MFU"] = {
                name: {kind: rate / peak for kind, peak in peaks.items() if peak}
                for name, rate in part["TFLOP/s"].items()
            }
    return found


def main() -> int:
    """Measure what fits into the time; returns the exit code."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--only", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only:
        numbers = PARTS[options.only].measure(parts.FULL)
        (options.out / f"{options.only}.json").write_text(json.dumps(numbers, indent=1) + "\n")
        return 0
    if not options.rehearse and not torch.cuda.is_available():
        print("torch sees no GPU here; --rehearse shows on the CPU that each part runs", file=sys.stderr)
        return 2
    found: dict[str, Any] = {"command": sys.argv, "parts": {}}
    for name in options.parts:
        left = 60 * options.minutes - (time.perf_counter() - started) - SPARE_SECONDS
        part = PARTS[name]
        if left < part.least:
            found["parts"][name] = {"left out": f"{left:.0f} s are left of {options.minutes:g} minutes"}
        else:
            found["parts"][name] = measure(name, options.out, min(part.most, left), options.rehearse)
        found["parts"] = with_mfu(found["parts"])
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(found, options.rehearse))
        print(f"{name}: {time.perf_counter() - started:.0f} s so far", flush=True)
    bad = [name for name, part in found["parts"].items() if part.get("failed") or part.get("exit code")]
    print(f"{options.out / 'gpu.md'}" + (f"; failed: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
