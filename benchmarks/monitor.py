"""What looks at the encoder cost in training, at the default interval.

    python benchmarks/monitor.py                    # both sizes
    python benchmarks/monitor.py --sizes demo --blocks 10

A step is forward, loss, backward and AdamW on random images that are already in memory, so that reading,
which only makes steps longer, is left out. In each round some steps are timed and then one look (RankMe and
kNN of 256 images, of ViT-S 64, so that it takes minutes on two cores); the share is the look over the
default interval's number of median steps of that round. With --blocks, whole intervals are timed as well,
of a run with looks and of one without, step by step in turn: their ratio holds all that a look does to the
steps after it. Medians over the rounds, in brackets their quartiles.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from lamina.callbacks.encoder_monitor import IMAGES, EncoderMonitor, MonitorPlan, fewest_steps, monitor_cost
from lamina.core.batch import Batch
from lamina.core.rng import sample_keys
from lamina.data.sources import ArraySource
from lamina.methods.catalog import recipe
from lamina.recipes.build import build_task, resolve
from lamina.recipes.recipe import Recipe
from lamina.train.state import TrainState


@dataclass(frozen=True)
class Size:
    """A recipe, a batch that two cores can bear, and how much of it is timed."""

    recipe: str
    batch: int
    images: int
    rounds: int
    steps: int


SIZES = {"demo": Size("demo", 64, IMAGES, 25, 20), "s": Size("mae", 8, 64, 5, 2)}


def images(n: int, side: int) -> torch.Tensor:
    """Noise, 8 bits."""
    generator = torch.Generator().manual_seed(n)
    return torch.randint(256, (n, 3, side, side), generator=generator, dtype=torch.uint8)


def stepper(task: nn.Module, batch: Batch) -> Callable[[], None]:
    """One training step."""
    task.train()
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        task(batch)["loss"].backward()
        optimizer.step()

    return step


def looker(task: nn.Module, chosen: Recipe, batch: Batch, n: int, every: int) -> Callable[[], None]:
    """One look at n images, as at the row of a run where it is due."""
    side = chosen.encoder.image_size[0]
    labels = [i % 16 for i in range(n)]
    names = [str(i) for i in range(n)]
    source = ArraySource(images(n, side), names, labels, names[:16])
    monitor = EncoderMonitor(MonitorPlan(source, source, every, 0.0), chosen)
    monitor.on_start(TrainState(total_steps=every))
    return lambda: assert_found(monitor.on_log(every, {}, batch, task))


def assert_found(row: dict[str, object] | None) -> None:
    """A look that measured nothing would be cheap."""
    assert row is not None
    assert set(row) == {"rankme", "knn_top1"}


def seconds(action: Callable[[], None]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def measure(key: str, blocks: int) -> dict[str, object]:
    """All numbers of one size."""
    size = SIZES[key]
    chosen = recipe(size.recipe)
    chosen = resolve(
        replace(
            chosen,
            train=replace(chosen.train, batch_size=size.batch, log_every_steps=1),
            data=replace(chosen.data, workers=0),
        )
    )
    task = build_task(chosen)
    side = chosen.encoder.image_size[0]
    batch = Batch(images(size.batch, side), sample_keys(0, 0, torch.arange(size.batch)))
    cost = size.images * monitor_cost(chosen, task)
    every = fewest_steps(cost, size.batch)
    step, look = stepper(task, batch), looker(task, chosen, batch, size.images, every)
    for _ in range(2):
        step()
        look()
    steps, looks, shares = [], [], []
    for _ in range(size.rounds):
        steps.append(statistics.median(seconds(step) for _ in range(size.steps)))
        looks.append(seconds(look))
        shares.append(looks[-1] / (every * steps[-1]))
    result: dict[str, object] = {
        "size": key,
        "rounds": size.rounds,
        "images": size.images,
        "every": every,
        "counted": cost / (every * size.batch),
        "step": spread(steps),
        "look": spread(looks),
        "share": spread(shares),
    }
    if blocks:
        other = stepper(build_task(chosen), batch)
        result["blocks"] = spread(block_ratios(step, other, look, every, blocks))
    return result


def block_ratios(
    watched: Callable[[], None], other: Callable[[], None], look: Callable[[], None], every: int, n: int
) -> list[float]:
    """Time of an interval with its look over that of one without: steps of two runs in turn."""
    ratios = []
    for _ in range(n):
        taken = {watched: seconds(look), other: 0.0}
        for i in range(every):
            for step in (watched, other) if i % 2 else (other, watched):
                taken[step] += seconds(step)
        ratios.append(taken[watched] / taken[other])
    return ratios


def main() -> None:
    """Print a line per size; with --json, keep everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--blocks", type=int, default=0, help="whole intervals; for the demo's size")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads", flush=True)
    results = []
    for key in options.sizes:
        found = measure(key, options.blocks)
        results.append(found)
        step, look, share = found["step"], found["look"], found["share"]
        print(f"{key}: step {1e3 * step['median']:.0f} ms, look {1e3 * look['median']:.0f} ms, ", end="")
        low, middle, high = (100 * share[name] for name in ("low", "median", "high"))
        print(f"every {found['every']} steps: {middle:.2f} % [{low:.2f}, {high:.2f}] of the time, ", end="")
        print(f"{100 * found['counted']:.2f} % by count ({found['rounds']} rounds)", flush=True)
        if "blocks" in found:
            ratio = found["blocks"]
            print(f"    with / without {ratio['median']:.4f} [{ratio['low']:.4f}, {ratio['high']:.4f}]")
    if options.json:
        options.json.write_text(
            json.dumps({"threads": torch.get_num_threads(), "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
