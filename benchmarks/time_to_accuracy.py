"""Does `fast-mff` reach the probe accuracy of MAE in at most a third of MAE's time?

    python benchmarks/time_to_accuracy.py photos-20 photos-16 --out runs/time    # goes on where it stopped
    python benchmarks/time_to_accuracy.py photos-20 photos-16 --out runs/time --table

The plan, fixed before the runs:

- **Arms**: lamina's MAE, `fast-mff`, transformers' ViTMAEForPreTraining, and MAE of lightly's modules. All
  have the same encoder, a ViT of 96 x 6 (width and depth of ViT-S over 4 and 2); the three MAEs have the
  same decoder, 128 x 4 (512 x 8 over 4 and 2), and `fast-mff` one of 64 x 2 (256 x 4 over 4 and 2). All
  train on the batches of lamina's loader with the same AdamW (fused, beta 0.9 and 0.95, weight decay 0.05),
  a warm-up of 5 % of the steps and half a cosine. Peers keep their own first weights and draw their own
  masks.
- **Time** is processor time of one thread, since the machine is shared. The cost of an image (loader,
  forward, backward, AdamW) is measured for all arms in turn in one process. T is what MAE needs for the
  epochs of the data set's row; an arm with a share of T takes the steps that its own cost allows. MAE and
  both peers have T, `fast-mff` T/3, T/6 and T.
- **Score**: lamina's linear probe and kNN on frozen features, means of the patch tokens of the last block.
  MFF's fused features are left out, so that all arms have the same candidates.
- **Primary endpoint**: linear probe of `fast-mff` at T/3 minus that of MAE at T, mean over 3 seeds with its
  95 % interval (Student's t). All other differences are secondary.
- **Gate**: a data set counts where MAE at T beats the untrained encoder and raw pixels by 5 points or more.
- **Chosen before, by pilots with seeds above 100**: data sets, epochs, batch and learning rate of MAE, and
  those of `fast-mff`. The runs have the seeds 0, 1 and 2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import torch
from scipy import stats
from torch import Tensor, nn

from lamina.core.batch import Batch, unit_float
from lamina.core.config import merge
from lamina.core.intervals import estimate
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.encoder.build import wrap_vit
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.features.options import FeatureOptions, LinearOptions
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.methods.catalog import recipe as named_recipe
from lamina.mim import mim_of
from lamina.recipes.build import build_task, resolve
from lamina.recipes.recipe import Recipe
from lamina.train.optim import build_optimizer, set_learning_rate
from lamina.train.schedule import learning_rate
from step import LightlyMAE, Size, loss_of, transformers_mae

WIDTH, DEPTH, HEADS = 96, 6, 3
MAE_DECODER = {"width": 128, "depth": 4, "heads": 4}
FAST_DECODER = {"width": 64, "depth": 2, "heads": 4}
WARM_UP = 0.05
SEEDS = (0, 1, 2)
ROUNDS = 15
MAE, FAST = "MAE", "fast-mff"
UNTRAINED = "untrained"
BUDGETS: dict[str, tuple[str, float]] = {
    UNTRAINED: (MAE, 0.0),
    MAE: (MAE, 1.0),
    "fast-mff, T/3": (FAST, 1 / 3),
    "fast-mff, T/6": (FAST, 1 / 6),
    "transformers": ("transformers", 1.0),
    "lightly": ("lightly", 1.0),
    "fast-mff, T": (FAST, 1.0),
}
"""What is run, in this order: the arm, and its share of MAE's time."""


@dataclass(frozen=True)
class Data:
    """Images, how they are seen, and MAE's schedule on them."""

    spec: str
    side: int
    patch: int
    channels: int
    epochs: float
    batch: int = 64
    base_lr: float = 1e-3


DATA = {
    "photos-20": Data("sample:photos?crop=20", 20, 4, 3, 9.0),
    "photos-16": Data("sample:photos?crop=16", 16, 4, 3, 9.0),
}


def shared_recipe(name: str, data: Data, seed: int, more: dict[str, Any]) -> Recipe:
    """A recipe by name, with the encoder and the schedule that all arms share."""
    encoder = {"name": "vit_tiny_patch16_224", "width": WIDTH, "depth": DEPTH, "heads": HEADS}
    images = {"image_size": (data.side, data.side), "patch_size": data.patch, "in_chans": data.channels}
    fields = {
        "encoder": encoder | images,
        "data": {"workers": 0, "eval_crop_share": 1.0},
        "train": {"seed": seed, "batch_size": data.batch},
        "optim": {"base_lr": data.base_lr},
    }
    return resolve(merge(merge(named_recipe(name), fields), more))


class Arm:
    """lamina's MAE: a model that trains on the batches of lamina's loader."""

    recipe_name = "mae"
    options: ClassVar[dict[str, Any]] = {
        "decoder": MAE_DECODER,
        "fusion": {"kind": "none", "logit_lr_scale": 1.0},
    }

    def __init__(self, data: Data, seed: int) -> None:
        self.data, self.recipe = data, shared_recipe(self.recipe_name, data, seed, self.options)
        self.module = self.build().train()
        self.optimizer = build_optimizer(self.module, self.recipe.optim, fused=True)
        self.batch_size = self.recipe.train.batch_size

    def build(self) -> nn.Module:
        """The model with its first weights."""
        return build_task(self.recipe)

    def loss(self, batch: Batch) -> Tensor:
        """The loss of one batch."""
        return self.module(batch)["loss"]

    def backbone(self) -> Backbone:
        """A copy of the encoder, frozen."""
        return Backbone(deepcopy(self.module.encoder))

    def loader(self) -> TrainLoader:
        """Images and crops by the seed; masks too, where the model is lamina's."""
        method = mim_of(self.module)
        return TrainLoader(
            open_source(self.data.spec),
            self.recipe.data,
            self.recipe.train.seed,
            self.batch_size,
            image_size=(self.data.side, self.data.side),
            in_chans=self.data.channels,
            masking=None if method is None else method.masking,
            grid=None if method is None else method.encoder.grid,
        )

    def step(self, batch: Batch, lr: float) -> None:
        """Forward, loss, backward and AdamW."""
        set_learning_rate(self.optimizer, lr)
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        self.optimizer.step()

    def train(self, steps: int) -> float:
        """Take the steps of a whole schedule; processor seconds."""
        options = replace(self.recipe.optim, warmup_steps=max(1, round(WARM_UP * steps)))
        started = time.process_time()
        for step, batch in enumerate(self.loader().batches(0, steps)):
            plan = {"total_steps": steps, "steps_per_epoch": 1.0, "batch_size": self.batch_size}
            self.step(batch, learning_rate(step, **plan, options=options))
        return time.process_time() - started


class Fast(Arm):
    """`fast-mff`; the fusion's logits learn 30 times as fast, as in `lamina demo`, since the run is short."""

    recipe_name = "fast-mff"
    options: ClassVar[dict[str, Any]] = {"decoder": FAST_DECODER, "fusion": {"logit_lr_scale": 30.0}}


class Peer(Arm):
    """A peer's model on the same images, with encoder and decoder of the same size."""

    def build(self) -> nn.Module:
        """From the arm's seed, by the peer's own initialisation."""
        torch.manual_seed(self.recipe.train.seed)
        mean, std = self.recipe.encoder.mean, self.recipe.encoder.std
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))
        data = self.data
        return self.peer(
            Size(data.side, data.patch, WIDTH, DEPTH, HEADS, *MAE_DECODER.values(), data.batch, 0)
        )

    def peer(self, size: Size) -> nn.Module:
        """The peer's model of that size."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """The loss of normalised images."""
        return loss_of(self.module((unit_float(batch.images) - self.mean) / self.std))


class Transformers(Peer):
    """transformers' ViTMAEForPreTraining."""

    def peer(self, size: Size) -> nn.Module:
        """The peer's model of that size."""
        return transformers_mae(size)

    def backbone(self) -> Backbone:
        """The encoder as lamina reads it from a folder of transformers."""
        with tempfile.TemporaryDirectory() as folder:
            self.module.save_pretrained(folder)
            return load_encoder(folder, encoder=self.recipe.encoder)


class Lightly(Peer):
    """MAE of lightly's modules."""

    def peer(self, size: Size) -> nn.Module:
        """The peer's model of that size."""
        return LightlyMAE(size)

    def backbone(self) -> Backbone:
        """Its timm network as an encoder of lamina."""
        return Backbone(wrap_vit(deepcopy(self.module.backbone.vit), self.recipe.encoder))


ARMS: dict[str, type[Arm]] = {MAE: Arm, FAST: Fast, "transformers": Transformers, "lightly": Lightly}


def measure_costs(data: Data) -> dict[str, dict[str, float]]:
    """Processor milliseconds per image of each arm, one step of each in turn: median and quartiles."""
    arms = {name: build(data, 1000) for name, build in ARMS.items()}
    batches = {name: iter(arm.loader().batches(0, ROUNDS + 2)) for name, arm in arms.items()}
    spent: dict[str, list[float]] = {name: [] for name in arms}
    for i in range(ROUNDS + 2):
        names = list(arms)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            started = time.process_time()
            arms[name].step(next(batches[name]), 1e-6)
            spent[name].append(1e3 * (time.process_time() - started) / arms[name].batch_size)
    found = {}
    for name, values in spent.items():
        low, median, high = statistics.quantiles(values[2:], n=4)
        found[name] = {"median": median, "low": low, "high": high, "rounds": ROUNDS}
    return found


def probe(backbone: Backbone, data: Data, pixels: bool) -> dict[str, Any]:
    """Test accuracies in percent, of raw pixels too where asked."""
    features = FeatureOptions(features=("last",), pools=("mean",), baselines=pixels)
    common = {"features": features, "workers": 0, "batch_size": 256, "device": "cpu"}
    linear = evaluate_linear(backbone, data.spec, options=LinearOptions(c=(30.0, 300.0, 3000.0)), **common)
    found = {"linear": linear, "knn": evaluate_knn(backbone, data.spec, **common)}
    values = {name: 100 * score.chosen().top1 for name, score in found.items()}
    if pixels:
        values |= {f"{name} of pixels": 100 * score.chosen("pixels").top1 for name, score in found.items()}
    return {**values, "settings": linear.settings}


def one_run(data: Data, budget: str, seed: int, costs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Train and probe."""
    name, share = BUDGETS[budget]
    arm = ARMS[name](data, seed)
    n = len(open_source(data.spec))
    time_of_mae = data.epochs * n * costs[MAE]["median"]
    steps = round(share * time_of_mae / costs[name]["median"] / arm.batch_size)
    seconds = arm.train(steps) if steps else 0.0
    scores = probe(arm.backbone(), data, pixels=budget == UNTRAINED and seed == SEEDS[0])
    about = {"budget": budget, "seed": seed, "steps": steps, "epochs": steps * arm.batch_size / n}
    return {**about, "allowed seconds": share * time_of_mae / 1e3, "seconds": seconds, **scores}


def kept(file: Path, make: Any) -> Any:
    """What the file holds; where it is not there, it is made and written."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(make(), indent=1) + "\n")
    return json.loads(file.read_text())


def difference(rows: dict[tuple[str, int], Any], a: str, b: str, what: str) -> str:
    """The mean difference of two budgets over seeds, and what it could have shown."""
    seeds = [seed for seed in SEEDS if (a, seed) in rows and (b, seed) in rows]
    gaps = [rows[a, seed][what] - rows[b, seed][what] for seed in seeds]
    if len(gaps) < 2:
        return "too few runs"
    found, n, sd = estimate(gaps), len(gaps), statistics.stdev(gaps)
    power = (stats.t.ppf(0.975, n - 1) + stats.t.ppf(0.8, n - 1)) * sd / n**0.5
    return f"{found.tell(sign=True)}, n = {n}; {power:.1f} would be found in 4 of 5 such studies"


def print_table(key: str, folder: Path) -> None:
    """What has been run, as Markdown, and the endpoints."""
    costs = json.loads((folder / "costs.json").read_text())
    rows = {}
    for budget, seed in product(BUDGETS, SEEDS):
        file = run_file(folder, budget, seed)
        if file.is_file():
            rows[budget, seed] = json.loads(file.read_text())
    print(f"\n{key}: {DATA[key].spec}")
    for name, cost in costs.items():
        print(f"  {name}: {cost['median']:.3f} [{cost['low']:.3f}, {cost['high']:.3f}] ms per image")
    print("\n| arm | allowed seconds | epochs | linear probe | kNN | linear probe minus MAE's |")
    print("|---|---|---|---|---|---|")
    for budget in BUDGETS:
        mine = [rows[budget, seed] for seed in SEEDS if (budget, seed) in rows]
        if mine:
            cells = (f"{mine[0]['allowed seconds']:.0f}", f"{mine[0]['epochs']:.1f}")
            scores = [estimate([row[what] for row in mine]).tell() for what in ("linear", "knn")]
            gap = "" if budget == MAE else difference(rows, budget, MAE, "linear")
            print(f"| {budget} | {' | '.join((*cells, *scores, gap))} |")
    first = rows.get((UNTRAINED, SEEDS[0]))
    if first:
        print(f"raw pixels: linear {first['linear of pixels']:.1f}, kNN {first['knn of pixels']:.1f}")
    print(f"gate, MAE minus untrained: {difference(rows, MAE, UNTRAINED, 'linear')}")
    print(f"primary endpoint: {difference(rows, 'fast-mff, T/3', MAE, 'linear')}")


def run_file(folder: Path, budget: str, seed: int) -> Path:
    """Where a run's numbers are kept."""
    return folder / f"{budget.replace(', ', '-').replace('/', '-')}-seed-{seed}.json"


def run_all(keys: Sequence[str], out: Path) -> None:
    """All runs that are not there yet, the primary ones first."""
    torch.set_num_threads(1)
    costs = {key: kept(out / key / "costs.json", lambda key=key: measure_costs(DATA[key])) for key in keys}
    for budget, key, seed in product(BUDGETS, keys, SEEDS):
        row = kept(
            run_file(out / key, budget, seed),
            lambda key=key, budget=budget, seed=seed: one_run(DATA[key], budget, seed, costs[key]),
        )
        print(key, row, flush=True)


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", choices=list(DATA))
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-accuracy"))
    parser.add_argument(
        "--table", action="store_true", help="print the tables of what is done, and run nothing"
    )
    options = parser.parse_args()
    if not options.table:
        run_all(options.data, options.out)
    for key in options.data:
        print_table(key, options.out / key)


if __name__ == "__main__":
    main()
