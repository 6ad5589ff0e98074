"""A product of the Hessian beside a gradient: time, interleaved in one process, and peak memory.

    python benchmarks/hessian.py                  # ViT-Ti/16 at 224 px, MAE's published decoder, batch 4
    python benchmarks/hessian.py --batch 16
    python benchmarks/hessian.py --lanczos        # also the products that 5 + 1 eigenvalues take, and why

Contenders: the gradient by the encoder's parameters with fused attention, that by all parameters (a
training step's), and a product over the encoder's parameters. In each round every contender takes one turn,
in an order that is turned from round to round; shown are medians of the ratios to the encoder's gradient
within a round and their quartiles. Peak memory is the growth of the resident set while one contender alone
takes three turns, in a process of its own; a product's includes making the graph, and four vectors as long
as the parameters.

The network is as initialised and the images are noise: time and memory do not depend on them, the number of
products with --lanczos does.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

import lamina
from lamina.analyze.curvature.lanczos import extremes
from lamina.analyze.curvature.operator import HessianOperator
from lamina.core.batch import Batch
from step import memory_mib, ratios

CONTENDERS = ("gradient, encoder", "gradient, all", "product, encoder")


def mae() -> torch.nn.Module:
    """ViT-Ti/16 with a decoder of 512 x 8."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    lamina.init_vit_mae(vit)
    return lamina.mae(vit, None, 0.75, 512, 8, 16).eval()


def batch_of(n: int) -> Batch:
    """Noise."""
    return Batch(torch.rand(n, 3, 224, 224), torch.arange(n))


def turn(name: str, task: torch.nn.Module, batch: Batch) -> Callable[[], object]:
    """One turn of a contender, with a model of its own."""
    if name.startswith("product"):
        operator = HessianOperator(task, batch)
        v = operator.normal(0)
        return lambda: operator(v)
    own = {id(p) for p in task.encoder.vit.parameters()}
    for parameter in task.parameters():
        wanted = name.endswith("all") or id(parameter) in own
        parameter.requires_grad_(parameter.requires_grad and wanted)
    chosen = [p for p in task.parameters() if p.requires_grad]
    return lambda: torch.autograd.grad(task(batch)["loss"], chosen)


def seconds(n: int, rounds: int) -> dict[str, list[float]]:
    """Of every contender in every round."""
    turns = {name: turn(name, mae(), batch_of(n)) for name in CONTENDERS}
    for each in turns.values():
        each()
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for i in range(rounds):
        k = i % len(CONTENDERS)
        for name in CONTENDERS[k:] + CONTENDERS[:k]:
            started = time.perf_counter()
            turns[name]()
            found[name].append(time.perf_counter() - started)
    return found


def own_peak(name: str, n: int) -> float:
    """MiB that three turns take beyond the imports and the model; what `peak` runs."""
    task, batch = mae(), batch_of(n)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = memory_mib("VmRSS")
    once = turn(name, task, batch)
    for _ in range(3):
        once()
    return memory_mib("VmHWM") - before


def peak(name: str, n: int) -> float:
    """`own_peak` in a process of its own."""
    code = f"import hessian; print(hessian.own_peak({name!r}, {n}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])


def lanczos(n: int) -> None:
    """How the residual falls with the products."""
    operator = HessianOperator(mae(), batch_of(n))
    started = time.perf_counter()

    def tick(residual: float) -> None:
        if operator.products % 5 == 0:
            print(f"    {operator.products} products, residual {residual:.1e}", flush=True)

    start = operator.normal(0)
    top, bottom = extremes(operator, start, lambda i: operator.normal(1, i), 5, 1, tick=tick)
    print(f"{operator.products} products in {time.perf_counter() - started:.0f} s")
    for found in (*top, *bottom):
        print(f"    {found.value:.4f}, residual {found.residual:.1e}")


def main() -> None:
    """Print times, memory and, on request, the products of both ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lanczos", action="store_true")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}", flush=True)
    found = seconds(options.batch, options.rounds)
    base = found[CONTENDERS[0]]
    memory = {name: peak(name, options.batch) for name in CONTENDERS}
    for name in CONTENDERS:
        ratio = ratios(found[name], base)
        spread = f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"
        best, mib = min(found[name]), memory[name]
        print(
            f"{name}: {spread} times as long, fastest {best:.2f} s; "
            f"{mib:.0f} MiB, {mib / memory[CONTENDERS[0]]:.2f} times as much"
        )
    if options.lanczos:
        lanczos(options.batch)


if __name__ == "__main__":
    main()
