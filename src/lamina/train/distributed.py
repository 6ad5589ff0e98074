"""The rank of this process and the number of ranks, by torchrun, and communication between ranks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from lamina.core.errors import LaminaError

T = TypeVar("T")


_LOCAL = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
"""What torchrun says of the ranks on this machine, and what holds without it."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of them, and the device it computes on."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """True on the one rank that writes files and talks."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """This rank's part of a global batch; raises where the batch cannot be cut evenly."""
        if batch_size % self.world:
            raise LaminaError(
                f"a global batch of {batch_size} cannot be shared by {self.world} ranks; "
                f"choose a multiple of {self.world}"
            )
        return batch_size // self.world


def restarts() -> int:
    """How often torchrun has started this group of ranks again after one of them was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def is_main() -> bool:
    """Whether this process is rank 0 (or alone), by what torchrun set; needs no process group."""
    return os.environ.get("RANK", "0") == "0"


def local_world() -> int:
    """How many ranks there are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", _LOCAL["LOCAL_WORLD_SIZE"]))


@contextmanager
def process_group(device: str = "auto") -> Iterator[Ranks]:
    """Join the process group that torchrun describes (gloo on CPU, NCCL on CUDA) and leave it at the end.

    Without torchrun there is one rank and nothing to join. Where a group exists already, that one is used
    and left as it was, so the contexts may be nested.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    here, local = (int(os.environ.get(name, default)) for name, default in _LOCAL.items())
    chosen = choose_device(device, here, local)
    if dist.is_initialized():
        yield Ranks(dist.get_rank(), dist.get_world_size(), chosen)
        return
    if world == 1:
        yield Ranks(0, 1, chosen)
        return
    _join(chosen)
    try:
        yield Ranks(rank, world, chosen)
    finally:
        dist.destroy_process_group()


def _join(device: torch.device) -> None:
    """Meet the other ranks of this attempt.

    torchrun keeps one store of addresses over all attempts of `--max-restarts`: each attempt has its own part
    of it, else gloo would read the addresses of ranks that are gone, and wait for them.

    Raises:
        LaminaError: where the environment names several ranks, but not where they meet.
    """
    try:
        store, rank, world = next(rendezvous("env://"))
    except ValueError as error:
        raise LaminaError(
            f"WORLD_SIZE says that there are several ranks, but {error}; start them by torchrun, "
            "or unset WORLD_SIZE"
        ) from error
    store = dist.PrefixStore(f"attempt-{restarts()}", store)  # type: ignore[attr-defined]  # it is public
    on_cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_cuda else "gloo",
        store=store,
        rank=rank,
        world_size=world,
        device_id=device if on_cuda else None,
    )


def choose_device(name: str = "auto", local_rank: int = 0, local_world: int = 1) -> torch.device:
    """ "auto" is this rank's GPU where there is one, else the CPU; other names are torch's.

    `local_rank` counts the ranks of this machine, of which there are `local_world`; each takes one GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LaminaError(f"there is no device called {name!r}; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise LaminaError(f"device {name!r} cannot be used here; use auto, cpu, cuda, cuda:1 or mps")
    if device.type == "cuda":
        device = _gpu(device, name, local_rank, local_world)
        torch.cuda.set_device(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise LaminaError("device 'mps' was asked for, but torch cannot use it here; use --device cpu")
    return device


def _gpu(device: torch.device, name: str, local_rank: int, local_world: int) -> torch.device:
    """The GPU that was asked for, or that of this rank; raises where there is none."""
    if not torch.cuda.is_available():
        raise LaminaError(f"device {name!r} was asked for, but torch sees no GPU; use --device cpu")
    found, chosen = torch.cuda.device_count(), ":" in name
    if not chosen and local_rank >= found:
        raise LaminaError(
            f"{local_world} ranks were started on this machine and torch sees {found} GPU(s); start {found}"
        )
    if chosen and local_world > 1:
        raise LaminaError(
            f"device {name!r} would put all {local_world} ranks of this machine on one GPU; use --device cuda"
        )
    if chosen and device.index >= found:
        raise LaminaError(
            f"device {name!r} was asked for, but torch sees {found} GPU(s), of which the last is "
            f"cuda:{found - 1}"
        )
    return device if chosen else torch.device("cuda", local_rank)


def parallel(forward: nn.Module, ranks: Ranks) -> nn.Module:
    """The module that averages gradients over the ranks; with one rank, or with weights in shares
    (`lamina.train.sharding`), the module itself.

    Buffers are those of rank 0 at the beginning and not broadcast at each forward: they are constants, or
    move alike on all ranks.
    """
    if ranks.world == 1 or isinstance(forward, FSDPModule):
        return forward
    ids = [ranks.device] if ranks.device.type == "cuda" else None
    wrapped = DistributedDataParallel(forward, device_ids=ids, gradient_as_bucket_view=True)
    wrapped.broadcast_buffers = False  # the argument has another name in newer torch; this works in all
    return wrapped


def add_over_ranks(values: Tensor, ranks: Ranks) -> Tensor:
    """The sum over all ranks, in place, the same bits on each of them."""
    if ranks.world > 1:
        dist.all_reduce(values)
    return values


def from_main(value: int, ranks: Ranks) -> int:
    """Rank 0's value, on every rank (which makes the others wait for it)."""
    if ranks.world == 1:
        return value
    tensor = torch.tensor([value], dtype=torch.int64, device=ranks.device)
    dist.broadcast(tensor, src=0)
    return int(tensor.item())


def on_main(ranks: Ranks, action: Callable[[], T]) -> T | None:
    """Let rank 0 do something while the others wait; returns what it gave, and None on the others.

    Every rank calls this. Where the action fails, all ranks raise, so that none is left waiting for one
    that has gone: rank 0 its own error, the others a `LaminaError` that says to look there.
    """
    result: T | None = None
    failure: Exception | None = None
    if ranks.main:
        try:
            result = action()
        except Exception as error:  # whatever it is, it is raised below, once the others know
            failure = error
    if from_main(int(failure is None), ranks):
        return result
    raise failure or LaminaError("rank 0 failed and the run with it; see its message")


def gather_json(value: Any, ranks: Ranks) -> list[Any]:
    """Every rank's value in the order of the ranks; as JSON, since pickles run code."""
    if ranks.world == 1:
        return [value]
    text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=ranks.device)
    sizes = torch.zeros(ranks.world, dtype=torch.int64, device=ranks.device)
    sizes[ranks.rank] = len(text)
    longest = int(add_over_ranks(sizes, ranks).max().item())
    padded = torch.zeros(longest, dtype=torch.uint8, device=ranks.device)
    padded[: len(text)] = text
    rows = [torch.zeros_like(padded) for _ in range(ranks.world)]
    dist.all_gather(rows, padded)
    return [json.loads(bytes(row[:n].tolist())) for row, n in zip(rows, sizes.tolist(), strict=True)]
