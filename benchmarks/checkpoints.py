"""How long training waits for its checkpoints, in each of the two ways of writing them.

    python benchmarks/checkpoints.py                    # ViT-B, 5 checkpoints each way
    python benchmarks/checkpoints.py --encoder vit_small_patch16_224 --checkpoints 9
    python benchmarks/checkpoints.py --folder /mnt/disk # where the checkpoints are written

A run of MAE + MFF on random images, with what `lamina pretrain` keeps beside its checkpoints (the encoder,
retention of 2), takes a checkpoint every few steps: with `checkpoint_async` (the default), and without it,
which is also how each checkpoint was written before that option existed. Shown are the median and the range
of the seconds that the training thread spends in `save`, in the last wait at the end of the run, and of the
steps: those taken while a checkpoint is written share processor and disk with it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

import lamina.train.loop as loop
from lamina.callbacks.export_encoder import EncoderExport
from lamina.core.batch import Batch
from lamina.core.rng import sample_keys
from lamina.recipes.build import build_task, resolve
from lamina.recipes.recipe import Recipe
from lamina.train.options import TrainOptions
from lamina.train.trainer import Trainer


class RandomImages:
    """Batches of random images."""

    def __init__(self, batch_size: int, side: int) -> None:
        self.n_samples = 100_000
        keys = sample_keys(0, 0, torch.arange(batch_size))
        self._batch = Batch(torch.rand(batch_size, 3, side, side), keys)

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch]:
        """The same batch again and again."""
        for _ in range(first_step, last_step):
            yield self._batch


class Timed:
    """Wall-clock seconds of each call of a function."""

    def __init__(self, holder: object, name: str) -> None:
        self.seconds: list[float] = []
        self._holder, self._name, self._plain = holder, name, getattr(holder, name)

        def timed(*arguments: object) -> object:
            started = time.perf_counter()
            try:
                return self._plain(*arguments)
            finally:
                self.seconds.append(time.perf_counter() - started)

        setattr(holder, name, timed)

    def restore(self) -> None:
        """Put the function back as it was."""
        setattr(self._holder, self._name, self._plain)


def measure(options: argparse.Namespace, asynchronous: bool, folder: Path) -> dict[str, list[float]]:
    """Seconds of each save, of the last wait, and of the steps, the first of each kind left out."""
    recipe = Recipe()
    recipe = resolve(replace(recipe, encoder=replace(recipe.encoder, name=options.encoder)))
    side = recipe.encoder.image_size[0]
    train = TrainOptions(
        max_steps=(options.checkpoints + 1) * options.every,
        batch_size=options.batch_size,
        checkpoint_every_steps=options.every,
        checkpoint_async=asynchronous,
        device=options.device,
    )
    export = EncoderExport(folder / "encoder", recipe.encoder, recipe.fusion)
    timed = {
        "save": Timed(Trainer, "save"),
        "end": Timed(Trainer, "finish_saving"),
        "step": Timed(loop, "step"),
    }
    try:
        loop.fit(
            build_task(recipe), RandomImages(options.batch_size, side), recipe.optim, train, folder, [export]
        )
    finally:
        for part in timed.values():
            part.restore()
    found = {name: part.seconds for name, part in timed.items()}
    return {"save": found["save"][1:], "end": found["end"], "step": found["step"][1:]}


def shown(seconds: list[float]) -> str:
    """Median, range and n."""
    low, high = min(seconds), max(seconds)
    return f"{statistics.median(seconds):.2f} s [{low:.2f}, {high:.2f}], n = {len(seconds)}"


def main() -> None:
    """Print a line for each way and part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="vit_base_patch16_224")
    parser.add_argument("--checkpoints", type=int, default=5, help="after the first one")
    parser.add_argument("--every", type=int, default=6, help="steps between two checkpoints")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made for the checkpoints")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {}
    for asynchronous in (False, True):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            found["beside" if asynchronous else "waiting"] = measure(options, asynchronous, Path(folder))
    print(f"{options.encoder}, batch {options.batch_size}, {torch.get_num_threads()} threads")
    for way, parts in found.items():
        for part, seconds in parts.items():
            print(f"{way}, {part}: {shown(seconds)}")
    if options.json:
        options.json.write_text(json.dumps({**vars(options), "seconds": found}, default=str, indent=1) + "\n")


if __name__ == "__main__":
    main()
