"""Every method compiled against itself uncompiled, at sizes whose patches no vector register divides.

    python benchmarks/compiled.py                       # every method at every size, a quarter of an hour
    python benchmarks/compiled.py crossmae deit         # some of them
    python benchmarks/compiled.py --masks given         # as a run has them: drawn by the loader
    python benchmarks/compiled.py --sizes 56x56 --device cuda

Each case is a process of its own, since wrong code may end it: a signal counts as a failure. Both ways get
the same weights, images and keys, and torch's own generator is the same in both (inductor's
`fallback_random`), so that drop path draws alike. A case holds where the loss differs by less than 1e-5 of
its size, each parameter's gradient by less than 1e-3 of its norm, and the masks not at all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

import lamina
from lamina.core.batch import Batch
from lamina.core.config import merge
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.methods.catalog import METHODS
from lamina.mim import mim_of
from lamina.recipes.build import Task, build_task, resolve
from lamina.recipes.recipe import Recipe
from lamina.targets.teacher import Teacher
from lamina.targets.token_ids import TokenIds
from lamina.train.precision import autocast

NAMES = [method.name for method in METHODS]
PATCH, BATCH = 4, 3
SIZES = {"20x20": (20, 20), "28x36": (28, 36), "56x56": (56, 56)}
"""25, 63 and 196 patches: none a multiple of 16."""
LOSS, GRADIENT = 1e-5, 1e-3


@dataclass(frozen=True)
class Case:
    """What is compiled, on which device, in which precision."""

    method: str
    size: str
    masks: str
    """Whether the batch brings its masks ("given") or the forward draws them ("drawn")."""
    device: str
    precision: str


class Parity(nn.Module):
    """A tokenizer of two words: whether the mean of a patch is above a half."""

    vocabulary, stride = 2, PATCH

    def ids(self, pixels: Tensor) -> Tensor:
        b, c, h, w = pixels.shape
        tiles = pixels.reshape(b, c, h // PATCH, PATCH, w // PATCH, PATCH)
        return (tiles.mean((1, 3, 5)) > 0.5).long()


def small(case: Case) -> Recipe:
    """The method's recipe with a little encoder, all its other choices as they are."""
    options: dict[str, Any] = {
        "encoder": {
            "image_size": list(SIZES[case.size]),
            "patch_size": PATCH,
            "width": 48,
            "depth": 2,
            "heads": 3,
        },
        "decoder": {"width": 32, "depth": 2, "heads": 2},
        "masking": {"unit_px": PATCH, "min_block": 2},
        "target": {"hog_cell_px": PATCH, "width": 24},
        "cmae": {"hidden": 16, "out": 8},
        "labels": {"classes": ["one", "two", "three"]},
        "fusion": {"layers": "all"},
    }
    return resolve(merge(lamina.recipe(f"{case.method}-small"), options))


def build(case: Case) -> tuple[Task, Batch]:
    """The method and a batch for it, the same in every process."""
    recipe = small(case)
    torch.manual_seed(0)
    grid = tuple(side // PATCH for side in SIZES[case.size])
    target: Teacher | TokenIds | None = None
    if recipe.target.kind == "tokens":
        target = TokenIds(Parity(), (PATCH, PATCH))
    elif recipe.target.kind == "teacher":
        vit = build_vit(
            EncoderOptions(image_size=SIZES[case.size], patch_size=PATCH, width=24, depth=2, heads=2)
        )
        scores = recipe.masking.kind == "scored"
        target = Teacher(vit, (0.5,) * 3, (0.25,) * 3, grid, scores=scores)
    task = build_task(merge(recipe, {"target": {"width": target.width}}) if target else recipe, target)
    for parameter in task.parameters():  # a zero may hide the path behind it
        parameter.data += 0.01 * torch.randn_like(parameter)
    images, view = torch.rand(2, BATCH, 3, *SIZES[case.size])
    keys = sample_keys(7, 1, torch.arange(BATCH))
    mim = mim_of(task)
    given = mim is not None and case.masks == "given" and recipe.masking.kind != "scored"
    mask = mim.masking(keys, mim.encoder.grid) if given else None
    batch = Batch(images, keys, mask, torch.tensor([0, 2, 1]), view=view)
    return task.to(case.device).train(), batch.to(case.device)


def measure(case: Case, compiled: bool) -> dict[str, Tensor]:
    """Loss, gradients and, of masked methods, the mask; on the CPU."""
    task, batch = build(case)
    forward = torch.compile(task) if compiled else task
    masks: list[Tensor] = []
    mim = mim_of(task)
    if mim is not None:
        mim.encoder.register_forward_pre_hook(lambda _, inputs: masks.append(inputs[2]))
    torch.manual_seed(1)
    with autocast(torch.device(case.device), case.precision):
        loss = forward(batch)["loss"]
    loss.backward()
    found = {name: p.grad.cpu() for name, p in task.named_parameters() if p.grad is not None}
    return {**found, "loss": loss.detach().cpu(), **({"mask": masks[0].cpu()} if masks else {})}


def compare(case: Case) -> dict[str, float]:
    """How far compiled is from not: the loss and the worst gradient as shares, and hidden patches that
    differ."""
    import torch._inductor.config as inductor  # costly, and needed in the cases' processes alone

    inductor.fallback_random = True
    plain, compiled = measure(case, False), measure(case, True)
    if plain.keys() != compiled.keys():
        raise SystemExit(f"gradients of other parameters: {sorted(plain.keys() ^ compiled.keys())}")
    worst = max(
        float((compiled[name] - value).norm() / value.norm().clamp_min(1e-12))
        for name, value in plain.items()
        if name not in ("loss", "mask")
    )
    differing = int((plain["mask"] != compiled["mask"]).sum()) if "mask" in plain else 0
    loss = float((compiled["loss"] - plain["loss"]).abs() / plain["loss"].abs())
    return {"loss": loss, "gradient": worst, "mask": differing}


def run(case: Case) -> tuple[bool, str]:
    """Whether the case holds, and what was found, in a process of its own with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        child = subprocess.run(
            [sys.executable, __file__, "--case", json.dumps(asdict(case))],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
        )
    if child.returncode:
        last = (child.stderr.strip().splitlines() or [""])[-1]
        return False, f"exit {child.returncode}: {last}"
    found = json.loads(child.stdout.splitlines()[-1])
    good = found["loss"] < LOSS and found["gradient"] < GRADIENT and found["mask"] == 0
    return good, f"loss {found['loss']:.1e}, gradient {found['gradient']:.1e}, mask {found['mask']}"


def main() -> None:
    """Run the cases asked for; exit 1 where one does not hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "methods",
        nargs="*",
        choices=[*NAMES, []],
        metavar="METHOD",
    )
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--masks", choices=("drawn", "given"), default="drawn")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.case:
        print(json.dumps(compare(Case(**json.loads(asked.case)))))
        return
    failed = 0
    for method, size in itertools.product(asked.methods or NAMES, asked.sizes):
        good, found = run(Case(method, size, asked.masks, asked.device, asked.precision))
        failed += not good
        print(f"{'holds' if good else 'FAILS'}  {method:15} {size}  {found}", flush=True)
    print(f"{failed} failed; torch {torch.__version__}, {asked.device}, {asked.precision}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
