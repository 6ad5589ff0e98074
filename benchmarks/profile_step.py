"""Where the time of a training step goes, operation by operation.

    python benchmarks/profile_step.py                        # ViT-S, MAE + MFF, batch 8, one thread
    python benchmarks/profile_step.py --size b --name lamina
    python benchmarks/profile_step.py --name transformers    # a peer's step, for comparison
    python benchmarks/profile_step.py --device cuda --bf16

Profiled by torch.profiler: forward, loss, backward and fused AdamW on images in memory. Each operation's own
time, without that of operations it calls, is added up by kind; the profiler itself makes small operations
look a little longer. The last column is how often a step calls it. With --shapes each operation is split by
the shapes of its inputs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import step as step_script
from step import SIZES, loss_of

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution"),
    "attention": ("scaled_dot_product",),
    "AdamW": ("_fused_adamw",),
    "GELU": ("gelu",),
    "layer norm": ("native_layer_norm", "layer_norm"),
    "copies, gathers, scatters": ("copy_", "cat", "gather", "scatter", "index", "clone", "contiguous"),
    "filling with a value": ("fill_", "zero_", "zeros", "ones"),
    "sums and element by element": ("add", "mul", "sub", "div", "sum", "mean", "var", "pow", "where", "neg"),
}
"""By the beginning of the operation's name after `aten::`; the first kind that fits counts."""


def kind_of(operation: str) -> str:
    """The kind of an operation."""
    name = operation.removeprefix("aten::").lstrip("_")
    for kind, starts in KINDS.items():
        if any(name.startswith(start.lstrip("_")) for start in starts):
            return kind
    return "all else"


def main() -> None:
    """Print a table of kinds, and one of operations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=list(SIZES), default="s")
    parser.add_argument("--name", default="lamina + MFF", help="a contender of benchmarks/step.py")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--shapes", action="store_true")
    parser.add_argument("--top", type=int, default=25)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, on_gpu = SIZES[options.size], options.device.startswith("cuda")
    torch.manual_seed(0)
    module = step_script.contenders(size)[options.name]().to(options.device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    images = torch.rand(options.batch_size, 3, size.image, size.image, device=options.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=options.bf16):
            loss = loss_of(module(images))
        loss.backward()
        optimizer.step()
        step_script.wait(options.device)

    step()
    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities, record_shapes=options.shapes) as found:
        for _ in range(options.steps):
            step()
    # Of a GPU's kernels the operations that started them have the time, so that they are left out here.
    averages = found.key_averages(group_by_input_shape=options.shapes)
    events = [event for event in averages if event.device_type == DeviceType.CPU]
    times = [(e, e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in events]
    total = sum(time for _, time in times)
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event, time in times:
        kinds[kind_of(event.key)][0] += time
        kinds[kind_of(event.key)][1] += event.count
    about = f"{options.name}, {options.size}, batch {options.batch_size}, torch {torch.__version__}"
    print(f"{about}, {options.device}: {total / options.steps / 1e3:.1f} ms a step")
    print("\n| | share of the step | calls |\n|---|---|---|")
    for kind, (time, calls) in sorted(kinds.items(), key=lambda item: -item[1][0]):
        print(f"| {kind} | {100 * time / total:.2f} % | {calls / options.steps:.0f} |")
    print("\n| operation | share of the step | calls |\n|---|---|---|")
    for event, time in sorted(times, key=lambda pair: -pair[1])[: options.top]:
        shapes = f" {event.input_shapes}" if options.shapes else ""
        print(f"| {event.key}{shapes} | {100 * time / total:.2f} % | {event.count / options.steps:.0f} |")


if __name__ == "__main__":
    main()
