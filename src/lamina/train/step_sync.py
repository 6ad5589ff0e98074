"""What happens in a step, agreed on by all ranks and read without waiting for the GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.train.distributed import Ranks, add_over_ranks


class RankFlags(NamedTuple):
    """What this rank sends to the others with a step: unreadable files, and whether to stop or to save."""

    faults: int
    stop: bool
    save: bool


class StepEvents(NamedTuple):
    """What happened in a step on any rank; the same on all of them."""

    step: int
    skipped: bool
    nonfinite: bool
    faults: int
    stop: bool
    save: bool
    high: bool
    """Whether the loss was far above that of the first step (`first_loss`)."""


@dataclass(frozen=True)
class ReducedStep:
    """Mean losses and flags of a step over all ranks; the tensors stay on the device."""

    terms: Float[Tensor, "T"]
    skip: Float[Tensor, ""]
    flags: Float[Tensor, "5"]


def reduce_step(
    terms: Mapping[str, Tensor], norm: Float[Tensor, ""], rank_flags: RankFlags, ranks: Ranks, scaled: bool
) -> ReducedStep:
    """Reduce one step over the ranks with a single small all-reduce.

    `terms` are this rank's means ("loss" first), `norm` the gradient's. The step is to be skipped where a
    loss or the gradient is not finite on any rank. With a `scaled` loss (fp16) an overflowing gradient is
    how the scale is found: skipped, but not counted as non-finite.
    """
    values = torch.stack([t.detach() for t in terms.values()]).to(wide(norm.device))
    loss_bad, norm_bad = (~torch.isfinite(values[0])).to(values), (~torch.isfinite(norm)).to(values)
    counted = loss_bad if scaled else loss_bad + norm_bad
    flags = torch.tensor(rank_flags, dtype=values.dtype).to(values.device, non_blocking=True)  # no wait
    skip = (loss_bad + norm_bad).view(1)
    vector = add_over_ranks(torch.cat([values, skip, counted.view(1), flags]), ranks)
    n = len(values)
    return ReducedStep(vector[:n] / ranks.world, (vector[n] > 0).float(), vector[n:])


def wide(device: torch.device) -> torch.dtype:
    """The widest floats that the device computes with."""
    return torch.float32 if device.type == "mps" else torch.float64


class AsyncFlags:
    """Copies each step's flags to the host without waiting: on CUDA they arrive one step late, elsewhere at
    once.

    On a CPU that costs nothing; on MPS each step waits for the device, which is accepted there.

    While the flags of step k are copied, the GPU already has the work of step k + 1. All ranks read the
    same reduced numbers at the same step, hence decide alike.
    """

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._waiting: deque[tuple[int, Tensor, torch.cuda.Event]] = deque()

    def push(self, step: int, flags: Float[Tensor, "6"]) -> list[StepEvents]:
        """Start the copy of the flags of step `step`, in the order of `StepEvents`; returns the events whose
        flags have arrived."""
        if not self._late:
            return [_events(step, flags)]
        here = torch.empty(flags.shape, dtype=flags.dtype, pin_memory=True).copy_(flags, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        self._waiting.append((step, here, copied))
        return self.drain(leave=1)

    def drain(self, leave: int = 0) -> list[StepEvents]:
        """All events but those of the newest `leave` steps; waits for the device."""
        events = []
        while len(self._waiting) > leave:
            step, flags, copied = self._waiting.popleft()
            copied.synchronize()
            events.append(_events(step, flags))
        return events


def _events(step: int, flags: Tensor) -> StepEvents:
    skipped, nonfinite, faults, stop, save, high = flags.tolist()
    return StepEvents(step, skipped > 0, nonfinite > 0, int(faults), stop > 0, save > 0, high > 0)


class AverageMeter:
    """Means of the named terms and of the gradient norm over a log interval, summed on the device.

    Values that are not finite are left out of the sums and of the counts.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sums = self._counts = torch.zeros(0)

    def add(self, names: tuple[str, ...], values: Float[Tensor, "T"]) -> None:
        """Count one step; the names are those of the first step, or it is a `LaminaError`."""
        if not self._names:
            self._names = names
            self._sums, self._counts = torch.zeros_like(values), torch.zeros_like(values)
        if names != self._names:
            raise LaminaError(f"the task returned the terms {names}; at first they were {self._names}")
        finite = torch.isfinite(values)
        self._sums += torch.where(finite, values, 0.0)
        self._counts += finite

    def means(self) -> dict[str, float | None]:
        """The means since the last `clear` (None where no step was finite); waits for the device."""
        sums, counts = self._sums.tolist(), self._counts.tolist()
        return {n: s / c if c else None for n, s, c in zip(self._names, sums, counts, strict=True)}

    def clear(self) -> None:
        """Begin a new interval."""
        self._sums.zero_()
        self._counts.zero_()

    def state_dict(self) -> dict[str, Any]:
        """As JSON: floats survive it bit for bit."""
        return {"names": list(self._names), "sums": self._sums.tolist(), "counts": self._counts.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with an interval that was interrupted."""
        self._names = tuple(state["names"])
        self._sums = torch.tensor(state["sums"], dtype=wide(self._device), device=self._device)
        self._counts = torch.tensor(state["counts"], dtype=wide(self._device), device=self._device)
