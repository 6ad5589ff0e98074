"""Does the demo learn? Linear probe of the trained encoder minus the better baseline, over several seeds.

    python benchmarks/demo.py --seeds 5 --json docs/demo.json

Each seed is a whole demo: its own weights, order, crops and masks. The bound is the lower end of the
two-sided 95 % interval of the mean gain (Student's t over the seeds). A seed that is already in the JSON file
is not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy import stats

from lamina.cli.demo import DATA, run_demo


def one_seed(seed: int) -> dict[str, float]:
    """Test accuracies of one demo, in percent, and its seconds."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = run_demo(Path(folder) / "demo", seed)
    row = {"seed": seed, "seconds": round(time.perf_counter() - started, 1)}
    for result in results:
        for encoder in ("trained", "untrained", "pixels"):
            row[f"{result.protocol} {encoder}"] = round(100 * result.chosen(encoder).top1, 2)
        row[f"{result.protocol} gain"] = round(100 * result.gain, 2)
    return row


def bounds(gains: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval."""
    mean = float(np.mean(gains))
    half = float(stats.t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
    return mean, mean - half, mean + half


def main() -> None:
    """Print a line per seed and the bounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("runs/demo-seeds.json"))
    options = parser.parse_args()
    known = json.loads(options.json.read_text())["seeds"] if options.json.is_file() else []
    rows = {row["seed"]: row for row in known}
    for seed in range(options.seeds):
        rows.setdefault(seed, None)
        rows[seed] = rows[seed] or one_seed(seed)
        print(rows[seed], flush=True)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        done = [row for row in rows.values() if row]
        options.json.write_text(json.dumps({"data": DATA, "seeds": done}, indent=1) + "\n")
    for protocol in ("knn", "linear"):
        mean, low, high = bounds([row[f"{protocol} gain"] for row in rows.values()])
        print(f"{protocol}: gain over the better baseline {mean:.1f}, 95 % interval [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    main()
