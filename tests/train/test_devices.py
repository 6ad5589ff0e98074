"""Training on a GPU: nothing in a step waits, numbers are those of the CPU, memory that runs out is shared.

Most tests have a CPU case, which shows that the test runs. What was run on a GPU so far: docs/gpu.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

import lamina
import lamina.train.loop as loop
from helpers.gpu import CUDA, DEVICES, NEEDS_GPU
from helpers.options import TINY_NETWORK, as_read
from helpers.runs import stripes_folder
from helpers.sharded import task_of
from helpers.training import ToyLoader, ToyTask, train
from lamina.core.batch import Batch
from lamina.core.moving_average import follow
from lamina.core.rng import sample_keys
from lamina.train import checkpoint
from lamina.train.distributed import Ranks
from lamina.train.host_copy import HostCopy
from lamina.train.sharding import shard
from lamina.train.trainer import Trainer

torch.set_num_threads(1)
METHODS = ["pixmim", "simmim", "maskfeat", "crossmae", "fast-mff", "pixio", "residual-decay", "cmae", "deit"]
"""Those that need no teacher's weights, but MAE."""
SETTINGS = {
    "train.log_every_steps": 2,
    "train.checkpoint_every_steps": 3,
    "train.checkpoint_every_seconds": None,
    "masking.unit_px": 8,
    "masking.min_block": 2,
    "target.hog_cell_px": 4,
}
"""Of these each method takes what it reads."""


def pretrain(out: Path, method: str, device: str, **more: object) -> list[float]:
    """A run of five steps; returns the losses of its rows."""
    start = f"{method}-small"
    options = as_read(start, {**TINY_NETWORK, **SETTINGS, **{f"train.{k}": v for k, v in more.items()}})
    data = stripes_folder(out.parent) if method == "deit" else "sample:photos?crop=16&most=40"
    named = {
        "image_size": 16,
        "patch_size": 4,
        "batch_size": 8,
        "workers": 0,
        "max_steps": 5,
        "device": device,
    }
    lamina.pretrain(data, out, start, options=options, **named)  # type: ignore[arg-type]
    rows = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows]


@contextmanager
def nothing_waits(device: str) -> Iterator[None]:
    """On a GPU, torch raises where the host waits for it."""
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class Guard:
    """Lets the loop's copies to the device and its steps, but the first two, run where nothing may wait."""

    def __init__(self, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps, self.pinned = 0, []
        step, to = loop.step, Batch.to

        def guarded_step(trainer: Trainer, batch: Batch) -> None:
            self.steps += 1
            assert batch.images.device.type == device
            with nothing_waits(device if self.steps > 2 else "cpu"):
                step(trainer, batch)

        def guarded_to(batch: Batch, *arguments: object) -> Batch:
            batch.each(lambda tensor: self.pinned.append(tensor.is_pinned()) or tensor)
            with nothing_waits(device if self.steps > 2 else "cpu"):
                return to(batch, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(loop, "step", guarded_step)
        monkeypatch.setattr(Batch, "to", guarded_to)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("method", "device"),
    [("mae", "cpu"), *(pytest.param(m, "cuda", marks=NEEDS_GPU) for m in ["mae", *METHODS])],
)
def test_no_step_waits_for_the_device(
    method: str, device: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = Guard(device, monkeypatch)
    losses = pretrain(tmp_path / "run", method, device, precision=precision)
    assert guard.steps == 5
    assert all(torch.isfinite(torch.tensor(losses)))
    assert len(guard.pinned) >= 10
    assert set(guard.pinned) == {device == "cuda"}, "each tensor of a batch lies in pinned memory"


@pytest.mark.parametrize(
    ("device", "precision", "tolerance"),
    [("cpu", "bf16", 2e-2), *(pytest.param("cuda", p, t, marks=NEEDS_GPU) for p, t in [("fp32", 1e-4), ("bf16", 2e-2), ("fp16", 5e-3)])],
)  # fmt: skip
def test_losses_are_those_of_the_cpu_in_fp32(
    device: str, precision: str, tolerance: float, tmp_path: Path
) -> None:
    expected = pretrain(tmp_path / "cpu", "mae", "cpu")
    more = {"tf32": False} if device == "cuda" else {}
    losses = pretrain(tmp_path / "run", "mae", device, precision=precision, **more)
    assert losses == pytest.approx(expected, rel=tolerance)
    assert len(losses) == 3


@pytest.mark.parametrize("device", [CUDA])
def test_a_compiled_run_has_the_same_losses(device: str, tmp_path: Path) -> None:
    expected = pretrain(tmp_path / "plain", "mae", device, tf32=False)
    assert pretrain(tmp_path / "compiled", "mae", device, tf32=False, compile=True) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_goes_on_from_a_checkpoint_that_was_written_beside_it(device: str, tmp_path: Path) -> None:
    train(tmp_path / "whole", device=device)
    train(tmp_path / "run", device=device, checkpoint_every_steps=3, signal_before=7)
    train(tmp_path / "run", device=device, resume=True)
    whole, run = (checkpoint.read(tmp_path / name / "checkpoints/step-13") for name in ("whole", "run"))
    for one, other in zip(whole[:2], run[:2], strict=True):
        assert one.keys() == other.keys()
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("device", DEVICES)
def test_a_copy_for_a_checkpoint_is_in_main_memory(device: str) -> None:
    task, held = ToyTask().to(device), HostCopy()
    copied = held.module(task)
    before = {name: tensor.clone() for name, tensor in checkpoint.model_tensors(task).items()}
    with torch.no_grad():
        for parameter in task.net.parameters():
            parameter.add_(1.0)
    found = checkpoint.model_tensors(copied)
    assert {tensor.device.type for tensor in found.values()} == {"cpu"}
    assert all(torch.equal(found[name], tensor.cpu()) for name, tensor in before.items())
    assert copied.teacher.weight is task.teacher.weight


@pytest.mark.parametrize("device", DEVICES)
def test_a_slow_copy_follows_by_its_share(device: str) -> None:
    slow = [torch.tensor([1.0, -2.0], device=device), torch.zeros(2, 3, device=device, dtype=torch.bfloat16)]
    own = [torch.tensor([3.0, 2.0], device=device), torch.ones(2, 3, device=device, dtype=torch.bfloat16)]
    with nothing_waits(device):
        follow(slow, own, 0.25)
    assert slow[0].tolist() == [1.5, -1.0]
    assert slow[1].unique().tolist() == [0.25]


@pytest.mark.parametrize("device", DEVICES)
def test_weights_in_shares_of_one_rank_have_the_gradients_of_whole_ones(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP2 on one GPU: gathering and scattering are real there, if only with itself."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    whole, cut = (task_of("mae").to(device).train() for _ in range(2))
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device)
    batch = Batch(images, sample_keys(0, 0, torch.arange(4, device=device)))
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", store=store, rank=0, world_size=1)
    try:
        shard(cut, Ranks(0, 1, torch.device(device)))
        losses = [task(batch)["loss"] for task in (whole, cut)]
        for loss in losses:
            loss.backward()
        found = {name: p.grad for name, p in cut.named_parameters() if p.grad is not None}
        assert all(isinstance(grad, DTensor) for grad in found.values())
        gathered = {name: grad.full_tensor() for name, grad in found.items()}
    finally:
        dist.destroy_process_group()
    expected = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=0.0)
    torch.testing.assert_close(gathered, expected, rtol=1e-4, atol=1e-6)
    assert len(expected) > 40


class Hungry(ToyTask):
    """Needs 384 MiB of the GPU's memory for each image."""

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        held = torch.empty(len(batch), 384 << 20, dtype=torch.uint8, device=batch.images.device)
        return {name: term + 0 * held[0, 0] for name, term in super().forward(batch).items()}


@pytest.mark.parametrize("device", [CUDA])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(device: str, tmp_path: Path) -> None:
    """1 GiB is left to the process: two images fit, four do not."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (1 << 30)) / total)
    try:
        train(tmp_path / "halved", task=Hungry(dropout=0.0), device=device, max_steps=3)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    train(tmp_path / "given", task=ToyTask(dropout=0.0), device=device, max_steps=3, micro_batch_size=2)
    assert "2 of 4 images fit into the GPU's memory at once" in (tmp_path / "halved/train.log").read_text()
    halved, given = (checkpoint.read(tmp_path / name / "checkpoints/step-3") for name in ("halved", "given"))
    torch.testing.assert_close(halved.model, given.model, rtol=1e-6, atol=1e-7)
    assert ToyLoader().batch_size == 4
