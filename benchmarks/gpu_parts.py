"""What `gpu.py` measures, part by part: each function takes a `Setting` and returns numbers for its JSON."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import ConcatDataset, DataLoader
from torch.utils.flop_counter import FlopCounterMode

import lamina
import loader as loader_script
import step as step_script
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.masking.random import RandomMasking
from lamina.plan.machine import matrix_rate
from lamina.train.precision import tf32
from step import SIZES, Size, loss_of, ratios

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Setting:
    """Where and how long a part measures."""

    device: str
    rounds: int
    seconds: float
    """Of the loader, for each contender."""
    pair_steps: int
    sizes: dict[str, Size]


GPU_SIZES = {
    "s": replace(SIZES["s"], batch=256),
    "b": replace(SIZES["b"], batch=128),
    "l": Size(224, 16, 1024, 24, 16, 512, 8, 16, 64, 9),
}
TINY = Size(32, 8, 48, 6, 3, 32, 1, 2, 4, 2)
FULL = Setting("cuda", rounds=10, seconds=8.0, pair_steps=1500, sizes=GPU_SIZES)
REHEARSAL = Setting("cpu", rounds=2, seconds=0.2, pair_steps=4, sizes=dict.fromkeys(GPU_SIZES, TINY))
"""The same parts on a CPU, of networks and lengths that take seconds: it shows that they run."""


def machine(setting: Setting) -> dict[str, Any]:
    """Names and versions, and the rate of large matrix products: what MFU is a share of."""
    device = torch.device(setting.device)
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "bf16 TFLOP/s": matrix_rate(device, torch.bfloat16) / 1e12,
    }
    with tf32(device):
        found["fp32 TFLOP/s as trained"] = matrix_rate(device, torch.float32) / 1e12
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "GPU": properties.name,
            "GPU GiB": properties.total_memory / 2**30,
            "CUDA": torch.version.cuda,
        }
    return found


def tests(setting: Setting) -> dict[str, Any]:
    """The tests with the mark `cuda`, their output in the log of this part; a rehearsal collects them."""
    files = [str(f) for f in sorted(ROOT.glob("tests/*/test_*.py")) if "helpers.gpu" in f.read_text()]
    on_gpu = setting.device == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.xml")
        how = ["--junit-xml", str(results)] if on_gpu else ["--collect-only"]
        command = [sys.executable, "-m", "pytest", "-m", "cuda", "-v", "-p", "no:cacheprovider", *how, *files]
        found: dict[str, Any] = {"exit code": subprocess.run(command, cwd=ROOT).returncode}
        if results.is_file():
            cases = list(ElementTree.parse(results).getroot().iter("testcase"))
            states = {str(case.get("name")): [child.tag for child in case] for case in cases}
            found["failed tests"] = [
                name for name, tags in states.items() if {"failure", "error"} & set(tags)
            ]
            found["skipped tests"] = [name for name, tags in states.items() if "skipped" in tags]
            found["passed tests"] = [name for name, tags in states.items() if not tags]
    return found


@contextmanager
def arithmetic(device: str) -> Iterator[None]:
    """bf16 by autocast, as lamina and the peers' trainers compute in it."""
    with torch.autocast(device, dtype=torch.bfloat16):
        yield


def stepper(
    module: nn.Module,
    size: Size,
    device: str,
    inside: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[[], None]:
    """One training step in bf16 with fused AdamW on images that are on the device."""
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )
    images = torch.rand(size.batch, 3, size.image, size.image, device=device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with arithmetic(device), inside():
            loss = loss_of(module(images))
        loss.backward()
        optimizer.step()

    return step


def step_of(key: str) -> Callable[[Setting], dict[str, Any]]:
    """The step of one size: lamina, lamina + MFF, the installed peers, and attention that is not fused."""

    def part(setting: Setting) -> dict[str, Any]:
        size, device = setting.sizes[key], setting.device
        builders = {name: build for name, build in step_script.contenders(size).items() if installed(name)}
        steppers, memory = {}, {}
        for name, build in builders.items():
            steppers[name], memory[name] = with_peak(lambda build=build: built(build, size, device), device)
        plain = built_module(builders["lamina"], device)
        steppers["lamina, attention not fused"] = stepper(
            plain, size, device, lambda: sdpa_kernel(SDPBackend.MATH)
        )
        seconds = interleaved(steppers, setting)
        flops = training_flops(builders["lamina"], size, device)
        rates = {name: size.batch / statistics.median(values) for name, values in seconds.items()}
        return {
            "batch": size.batch,
            "images/s": rates,
            "TFLOP/s": {n: r * flops / 1e12 for n, r in rates.items() if n.startswith("lamina")},
            "GFLOP per image of MAE": flops / 1e9,
            "peak GiB": memory,
            "lamina is so many times as fast as": {
                name: ratios(values, seconds["lamina"])
                for name, values in seconds.items()
                if name != "lamina"
            },
            "not installed": [name for name in step_script.PEERS if not installed(name)],
        }

    return part


def compile_of(key: str) -> Callable[[Setting], dict[str, Any]]:
    """lamina's step compiled beside itself uncompiled."""

    def part(setting: Setting) -> dict[str, Any]:
        size, device = setting.sizes[key], setting.device
        if device == "cpu":
            return {"left out": "a rehearsal compiles nothing"}
        module = built_module(step_script.contenders(size)["lamina"], device)
        other = built_module(step_script.contenders(size)["lamina"], device)
        started = time.perf_counter()
        compiled = stepper(torch.compile(other), size, device)  # type: ignore[arg-type]
        compiled()
        step_script.wait(device)
        first = time.perf_counter() - started
        seconds = interleaved({"plain": stepper(module, size, device), "compiled": compiled}, setting)
        faster = ratios(seconds["plain"], seconds["compiled"])
        return {"first step, seconds": first, "compiled / plain, times as fast": faster}

    return part


def installed(name: str) -> bool:
    """Whether a contender can be built here."""
    return name not in step_script.PEERS or find_spec(name) is not None


def built_module(build: Callable[[], nn.Module], device: str) -> nn.Module:
    """A contender with weights of seed 0 on the device."""
    torch.manual_seed(0)
    return build().to(device).train()


def built(build: Callable[[], nn.Module], size: Size, device: str) -> Callable[[], None]:
    """Its step."""
    return stepper(built_module(build, device), size, device)


def with_peak(make: Callable[[], Callable[[], None]], device: str) -> tuple[Callable[[], None], float | None]:
    """A step that was taken three times, and the GiB of the GPU that it needed beyond what was there."""
    if device == "cpu":
        return make(), None
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step = make()
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    return step, (torch.cuda.max_memory_allocated() - before) / 2**30


def interleaved(steppers: dict[str, Callable[[], None]], setting: Setting) -> dict[str, list[float]]:
    """Seconds of every contender in every round, in an order that is turned from round to round."""
    names, seconds = list(steppers), {name: list[float]() for name in steppers}
    for step in steppers.values():
        step()
        step()
    for i in range(setting.rounds):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            step_script.wait(setting.device)
            started = time.perf_counter()
            steppers[name]()
            step_script.wait(setting.device)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def training_flops(build: Callable[[], nn.Module], size: Size, device: str) -> float:
    """Operations of a training step for an image, of matrix products and attention, by torch's counter."""
    module, images = built_module(build, device), torch.rand(2, 3, size.image, size.image, device=device)
    with FlopCounterMode(display=False) as counter:
        loss_of(module(images)).backward()
    return counter.get_total_flops() / len(images)


def loading(setting: Setting) -> dict[str, Any]:
    """Images per second that reach the device, from JPEG files of 500 x 375 px; a worker for each core."""
    side, workers = loader_script.SIDE, min(os.cpu_count() or 1, 16) if setting.device == "cuda" else 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "photographs").mkdir()
        loader_script.write_small(root / "photographs")
        batch_size = 128 if workers else 8
        ours = TrainLoader(
            open_source(str(root)),
            DataOptions(workers=workers),
            seed=0,
            batch_size=batch_size,
            image_size=(side, side),
            masking=RandomMasking(0.75),
            grid=(side // 16, side // 16),
        )
        many = ConcatDataset([loader_script.folder_of(root)] * 10_000)
        peer = DataLoader(many, batch_size, True, num_workers=workers, pin_memory=setting.device == "cuda")
        contenders = {"lamina": ours.batches(0, 1_000_000), "ImageFolder": (images for images, _ in peer)}
        rates = {}
        for name, batches in contenders.items():
            rates[name] = images_per_second(batches, setting, batch_size)
            batches.close()  # its workers end
    return {"workers": workers, "batch": batch_size, "images/s": rates}


def images_per_second(batches: Iterator[Any], setting: Setting, batch_size: int) -> float:
    """After the first two batches, for the seconds of the setting."""
    for _ in range(2):
        next(batches).to(setting.device, non_blocking=True)
    started, n = time.perf_counter(), 0
    while time.perf_counter() - started < setting.seconds:
        next(batches).to(setting.device, non_blocking=True)
        n += batch_size
    step_script.wait(setting.device)
    return n / (time.perf_counter() - started)


def pair(setting: Setting) -> dict[str, Any]:
    """The recipe `demo` with and without MFF through `lamina.pretrain`, and kNN on frozen features."""
    on_gpu, found = setting.device == "cuda", {}
    data = "sample:photos?crop=20" if on_gpu else "sample:photos?crop=20&most=8"
    small = {} if on_gpu else {"encoder.width": 24, "train.batch_size": 8}
    for fusion, name in (("none", "MAE"), ("mff", "MAE + MFF")):
        with tempfile.TemporaryDirectory() as folder:
            run, started = Path(folder, "run"), time.perf_counter()
            lamina.pretrain(
                data,
                run,
                "demo",
                fusion=fusion,
                device=setting.device,
                precision="bf16",
                max_steps=setting.pair_steps,
                workers=4 if on_gpu else 0,
                options={**small, "monitor.every_steps": setting.pair_steps},
            )
            seconds = time.perf_counter() - started
            rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            features = lamina.FeatureOptions(baselines=False)
            score = lamina.evaluate_knn(run, data, features=features, workers=0, device=setting.device)
        found[name] = {
            "steps": setting.pair_steps,
            "seconds": seconds,
            "first loss": rows[0]["loss"],
            "last loss": rows[-1]["loss"],
            "kNN %": 100 * score.chosen().top1,
        }
    return found
