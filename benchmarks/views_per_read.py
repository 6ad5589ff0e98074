"""What do several crops of each image that is read (`data.views_per_read`) do to the accuracy of probes?

    python benchmarks/views_per_read.py --out runs/views            # goes on where it stopped
    python benchmarks/views_per_read.py --out runs/views --table

The plan, fixed before the runs:

- **Arms**: MAE, an encoder of 96 x 6 on crops of photographs of 20 px, as in `time_to_accuracy.py`, with 1, 2
  and 4 views per read. *Equal crops*: all take the same number of steps. *Equal reading*: those with 2 and 4
  views take as many more steps as reading is faster, measured here on JPEGs of 500 x 375 px: what a run gains
  whose speed the loader limits. Where the network limits the speed there is nothing to gain.
- **Score**: linear probe and kNN on the means of the patch tokens of the last block.
- **Primary endpoint**: linear probe with 4 views at equal reading minus that with 1, mean over the seeds 0, 1
  and 2 with its 95 % interval (Student's t). All others are secondary.
- **Limit**: only the effect of the crops is real; the images are in memory, so that no file is read.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from lamina.core.config import merge
from lamina.core.intervals import estimate
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from loader import lamina, timed, write_small
from step import ratios
from time_to_accuracy import DATA, SEEDS, Arm, difference, kept, probe, run_file

VIEWS = (1, 2, 4)
IMAGES = DATA["photos-20"]
ROUNDS = 15
BUDGETS: dict[str, tuple[int, bool]] = {
    "1 view": (1, False),
    "4 views, equal reading": (4, True),
    "4 views, equal crops": (4, False),
    "2 views, equal reading": (2, True),
    "2 views, equal crops": (2, False),
}
"""What is run, in this order: views of an image that is read, and whether it takes more steps."""


def measure_reading() -> dict[str, dict[str, float]]:
    """How many times as fast crops are made, by views per read."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        (root / "photographs").mkdir(parents=True)
        write_small(root / "photographs")
        files = sorted(root.glob("*/*"))
        for file in files[len(files) // 4 * 4 :]:  # a batch is a multiple of the views
            file.unlink()
        options = {views: DataOptions(views_per_read=views, jpeg_decoding="reduced") for views in VIEWS}
        turns = {str(views): lamina(root, each) for views, each in options.items()}
        seconds = timed(turns, ROUNDS)
    return {name: {**ratios(seconds["1"], each), "rounds": ROUNDS} for name, each in seconds.items()}


def one_run(name: str, seed: int, reading: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Train and probe."""
    views, more = BUDGETS[name]
    arm = Arm(IMAGES, seed)
    arm.recipe = merge(arm.recipe, {"data": {"views_per_read": views}})
    n = len(open_source(IMAGES.spec))
    factor = reading[str(views)]["median"] if more else 1.0
    steps = round(factor * IMAGES.epochs * n / arm.batch_size)
    seconds = arm.train(steps)
    about = {"arm": name, "seed": seed, "steps": steps, "epochs": steps * arm.batch_size / n}
    return {**about, "seconds": seconds, **probe(arm.backbone(), IMAGES, pixels=False)}


def print_table(folder: Path) -> None:
    """What has been run, as Markdown, and the endpoint."""
    for views, found in json.loads((folder / "reading.json").read_text()).items():
        print(f"{views} views: {found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}] times as fast")
    files = {(name, seed): run_file(folder, name, seed) for name, seed in product(BUDGETS, SEEDS)}
    rows = {key: json.loads(file.read_text()) for key, file in files.items() if file.is_file()}
    print(
        "\n| arm | epochs | linear probe | kNN | linear probe minus that with 1 view |\n|---|---|---|---|---|"
    )
    for name in BUDGETS:
        mine = [rows[name, seed] for seed in SEEDS if (name, seed) in rows]
        if len(mine) > 1:
            scores = [estimate([row[what] for row in mine]).tell() for what in ("linear", "knn")]
            gap = "" if name == "1 view" else difference(rows, name, "1 view", "linear")
            print(f"| {name} | {mine[0]['epochs']:.1f} | {' | '.join((*scores, gap))} |")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/views-per-read"))
    parser.add_argument(
        "--table", action="store_true", help="print the table of what is done, and run nothing"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.table:
        reading = kept(options.out / "reading.json", measure_reading)
        for name, seed in product(BUDGETS, SEEDS):
            file = run_file(options.out, name, seed)
            print(kept(file, partial(one_run, name, seed, reading)), flush=True)
    print_table(options.out)


if __name__ == "__main__":
    main()
