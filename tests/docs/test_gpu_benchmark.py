"""`benchmarks/gpu.py` runs, here on a CPU with tiny networks, and ends in time with what it has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script as a module; what it imports beside it is forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    pytest.importorskip("transformers", reason="the peers of the benchmarks come with lamina[bench]")
    before = set(sys.modules)
    import gpu

    yield gpu
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


def run(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu.py", *map(str, words)])
    code: int = gpu.main()
    return code


def test_a_rehearsal_measures_every_part(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But the tests with the mark `cuda`, which pytest would collect for longer than all else takes."""
    names = [name for name in gpu.PARTS if name not in ("tests", "step-s", "compile-b")]
    assert run(gpu, monkeypatch, "--rehearse", "--out", tmp_path, "--parts", *names) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    page = (tmp_path / "gpu.md").read_text()
    assert list(found) == names
    assert all(f"## {name}\n" in page for name in names)
    assert page.startswith("# Rehearsal on a CPU")
    step = found["step-b"]
    assert step["images/s"].keys() >= {
        "lamina",
        "lamina + MFF",
        "transformers",
        "lamina, attention not fused",
    }
    rate, flops = step["images/s"]["lamina"], step["GFLOP per image of MAE"]
    assert step["TFLOP/s"]["lamina"] == pytest.approx(rate * flops / 1e3)
    share = step["MFU"]["lamina"]["of measured products"]
    assert share == pytest.approx(step["TFLOP/s"]["lamina"] / found["machine"]["bf16 TFLOP/s"])
    assert min(found["loader"]["images/s"].values()) > 0
    for name in ("MAE", "MAE + MFF"):
        assert 0 <= found["pair"][name]["kNN %"] <= 100
        assert found["pair"][name]["last loss"] > 0
    assert "left out" in found["compile-s"]


def test_flops_of_a_step_are_three_times_those_of_its_matrices(gpu: ModuleType) -> None:
    """Two for each weight and row forward, twice that backward; the first layer's input needs no gradient."""

    class Task(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(12, 5, bias=False), nn.Linear(5, 7, bias=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(images.flatten(1))).mean()

    size = replace(gpu.parts.TINY, image=2)
    assert gpu.parts.training_flops(Task, size, "cpu") == 2 * (2 * 12 * 5 + 3 * 5 * 7)


def test_parts_that_no_longer_fit_are_left_out(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(gpu, monkeypatch, "--rehearse", "--out", tmp_path, "--minutes", 0.1) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(found) == list(gpu.PARTS)
    assert all(part["left out"].endswith("s are left of 0.1 minutes") for part in found.values())


def test_a_part_that_hangs_is_stopped_at_its_limit(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.in_process("tests", tmp_path, 0.2)["failed"] == "stopped after 0 s"


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure for minutes: there is a GPU")
def test_without_a_gpu_it_says_so(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(gpu, monkeypatch, "--out", tmp_path) == 2
    assert "torch sees no GPU here; --rehearse" in capsys.readouterr().err
