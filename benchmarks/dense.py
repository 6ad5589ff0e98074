"""Does pre-training show in dense labels? An MAE against its untrained twin on `sample:doom`, three seeds.

    python benchmarks/dense.py --out docs/studies/dense-doom

Pre-trains one MAE, then runs `lamina evaluate all` for kNN of frames, segmentation and detection, with the
changes of their recipes that `dense.yaml` holds; what trains is run for both models at a time, with half of
the cores each. It fails unless box AP50 is 0.15 or more and twice the twin's, and mIoU three points above the
twin's. Every command is printed; killed and called again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from calling import call, call_together

DATA = "sample:doom"
CONFIG = os.path.relpath(Path(__file__).with_suffix(".yaml"))
PRETRAINING = (
    "--recipe mae-small --encoder vit_tiny_patch16_224 --encoder.width 96 --encoder.depth 6 "
    "--encoder.heads 3 --decoder.width 64 --decoder.depth 2 --decoder.heads 2 "
    "--image-size 112 160 --patch-size 8 "
    "--epochs 24 --optim.warmup-epochs 2 --batch-size 32 --base-lr 8e-3 --fusion none"
)
AP50, TIMES, POINTS = 0.15, 2.0, 0.03


def main() -> None:
    """Pre-train and measure what is missing, then compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    asked = parser.parse_args()
    run, table, workers = asked.out / "runs" / "mae", asked.out / "table", ["--workers", str(asked.workers)]
    call(["pretrain", DATA, "--out", str(run), "--resume", *workers, *PRETRAINING.split()])
    models = [f"MAE={run}", f"untrained=untrained:{run}"]
    data = [DATA, "--seeds", str(asked.seeds), "--config", CONFIG, "--out", str(table), *workers]
    call(["evaluate", "all", *models, *data, "--protocols", "knn"])
    trained = ["--protocols", "segment", "detect"]
    call_together([["evaluate", "all", model, *data, *trained] for model in models])
    call(["evaluate", "all", *models, *data, *trained, "knn"])
    sys.exit(judge(json.loads((table / "result.json").read_text(encoding="utf-8"))["scores"]))


def judge(scores: dict[str, list[dict[str, Any]]]) -> int:
    """Print both numbers of both models; 1 where they are not as far apart as they should be."""
    boxes = {
        name: mean(s["more"]["bbox_AP50"] for s in of(found, "detect")) for name, found in scores.items()
    }
    maps = {name: mean(s["value"] for s in of(found, "segment")) for name, found in scores.items()}
    print(f"box AP50: MAE {boxes['MAE']:.3f}, untrained {boxes['untrained']:.3f}")
    print(f"mIoU: MAE {maps['MAE']:.3f}, untrained {maps['untrained']:.3f}")
    found = boxes["MAE"] >= max(AP50, TIMES * boxes["untrained"])
    return 0 if found and maps["MAE"] >= maps["untrained"] + POINTS else 1


def of(scores: list[dict[str, Any]], protocol: str) -> list[dict[str, Any]]:
    """Those of a protocol."""
    return [score for score in scores if score["protocol"].startswith(protocol)]


if __name__ == "__main__":
    main()
