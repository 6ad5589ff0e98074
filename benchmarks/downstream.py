"""MAE against MAE + MFF downstream: both pre-trained on the same images, then `lamina evaluate all`.

    python benchmarks/downstream.py sample:doom --out docs/studies/downstream-doom
    python benchmarks/downstream.py sample:fashion-mnist --out docs/studies/downstream-fashion-mnist

Runs of a pair differ in `--fusion` and in nothing else; each seed has weights, masks and order of its own.
The labels are first seen by the protocols; both models are fine-tuned at a time, with half of the cores each.
Every command is printed; killed and called again, it goes on.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from calling import call, call_together

NETWORK = "--encoder vit_tiny_patch16_224 --encoder.width 96 --encoder.depth 12 --encoder.heads 3"
RATE = "--batch-size 128 --base-lr 2e-3"
SHARED = f"{RATE} --recipe mae-small {NETWORK} --decoder.width 64 --decoder.depth 2 --decoder.heads 2"
PRETRAINING = {
    "sample:doom": "--image-size 112 160 --patch-size 16 --epochs 20 --optim.warmup-epochs 2",
    "sample:fashion-mnist": "--image-size 28 --patch-size 4 --in-chans 1 "
    "--max-steps 320 --optim.warmup-epochs 0.07",
}
CONFIG = os.path.relpath(Path(__file__).with_suffix(".yaml"))
# Few labels: what pre-training gave is to show. Frames are larger, so that they are fine-tuned for less long.
EVALUATION = {
    "sample:doom": ["sample:doom", "--epochs", "5"],
    "sample:fashion-mnist": ["sample:fashion-mnist?most=2000"],
}
MODELS = {"MAE": "none", "MAE + MFF": "mff"}
FROZEN = ("knn", "linear")


def pretrain(data: str, folder: Path, fusion: str, seed: int, workers: int) -> Path:
    """A run of the pair, in its own folder; one that was cut goes on."""
    run = folder / f"{fusion}-seed{seed}"
    options = [*SHARED.split(), *PRETRAINING[data].split(), "--fusion", fusion, "--seed", str(seed)]
    call(["pretrain", data, "--out", str(run), "--resume", "--workers", str(workers), *options])
    return run


def main() -> None:
    """Pre-train what is missing, then measure what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", choices=PRETRAINING)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--protocols", nargs="+", default=["knn", "linear", "finetune"])
    asked = parser.parse_args()
    models = []
    for name, fusion in MODELS.items():
        runs = [
            pretrain(asked.data, asked.out / "runs", fusion, seed, asked.workers)
            for seed in range(asked.seeds)
        ]
        models.append(f"{name}={','.join(map(str, runs))}")
    out = ["--config", CONFIG, "--out", str(asked.out / "table"), "--workers", str(asked.workers)]
    how = [*EVALUATION[asked.data], *out, "--protocols"]
    frozen = [protocol for protocol in asked.protocols if protocol in FROZEN]
    trained = [protocol for protocol in asked.protocols if protocol not in FROZEN]
    if frozen and trained:  # the first call makes the folder that the two share
        call(["evaluate", "all", *models, *how, *frozen])
        call_together([["evaluate", "all", model, *how, *trained] for model in models])
    call(["evaluate", "all", *models, *how, *asked.protocols])


if __name__ == "__main__":
    main()
