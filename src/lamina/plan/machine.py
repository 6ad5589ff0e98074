"""What a run would compute on: device, cores, the precision that suits them, and how fast it is."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from lamina.core.errors import LaminaError
from lamina.train.distributed import Ranks, local_world
from lamina.train.options import Precision
from lamina.train.precision import DTYPES, tf32

FASTER = 2.0
"""How much faster than in fp32 a CPU has to multiply in bf16, or a GPU without bf16 in fp16, for it to be
taken. The whole step gains less: on a CPU whose products are 3 times as fast, it was 1.5 times as fast."""

_EFFICIENCY = {("cpu", True): 0.5, ("cpu", False): 0.15, ("cuda", True): 0.5, ("cuda", False): 0.35}
"""By device, and whether it is fp32: the share of the rate of large matrix products that a training step
reaches, approximately; 0.3 for others."""


@dataclass(frozen=True)
class Machine:
    """What a run computes on."""

    device: str = "cpu"
    """cpu, cuda or mps."""
    name: str = ""
    """What the device calls itself; empty where it does not say."""
    ranks: int = 1
    """Processes that train, one for each GPU."""
    cores: int = 1
    """Processor cores for each of them."""
    precision: Precision = "fp32"
    """The fastest precision that is safe for training."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Floating point operations per second in large matrix products on each rank, by precision, as far as
    they were measured."""

    def __str__(self) -> str:
        if self.device == "cpu":
            kind = "processor core"
            count = self.cores * self.ranks
        else:
            kind, count = ("Apple GPU" if self.device == "mps" else "GPU"), self.ranks
        named = f" ({self.name})" if self.name else ""
        return f"{count} {kind}{'s' if count != 1 else ''}{named}"

    def step_rate(self, precision: str) -> float | None:
        """Operations per second in training steps of that precision, over all ranks, approximately; None
        where it is not known."""
        rate = self.rates.get(precision)
        share = _EFFICIENCY.get((self.device, precision == "fp32"), 0.3)
        return None if rate is None else rate * self.ranks * share


def this_machine(ranks: Ranks) -> Machine:
    """The machine that this rank runs on; measures for about a tenth of a second."""
    device = ranks.device
    half = _half_precision(device)
    with tf32(device):  # as a training computes fp32
        rates = {name: matrix_rate(device, DTYPES[name]) for name in ("fp32", *half)}
    # A GPU that has bf16 multiplies TF32 at about half its rate; bf16 also halves what is read and written.
    by_kind = device.type == "cuda" and half == ("bf16",)
    faster = bool(half) and (by_kind or rates[half[0]] > FASTER * rates["fp32"])
    precision: Precision = half[0] if faster else "fp32"
    return Machine(
        device=device.type,
        name=torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        ranks=ranks.world,
        cores=max(1, torch.get_num_threads() if device.type == "cpu" else _cores() // local_world()),
        precision=precision,
        rates={str(name): rate for name, rate in rates.items()},
    )


def _cores() -> int:
    """Processor cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _half_precision(device: torch.device) -> tuple[Precision, ...]:
    """The lower precision that the device computes safely, if any: bf16, or on GPUs without it fp16."""
    if device.type == "cuda":
        return ("bf16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ("fp16",)
    return ("bf16",) if device.type == "cpu" else ()


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations per second in products of square matrices: a small one first, which may be slow where the
    type is emulated, and a large one where the small one took no time.

    Raises:
        LaminaError: where the device cannot compute at all.
    """
    side, rate = 256, 0.0
    try:
        while True:
            a = torch.ones(side, side, dtype=dtype, device=device)
            (a @ a)[0, 0].item()  # once for nothing: libraries are loaded, kernels chosen
            started = time.perf_counter()
            (a @ a)[0, 0].item()
            seconds = max(time.perf_counter() - started, 1e-7)
            rate = max(rate, 2 * side**3 / seconds)
            if seconds > 0.01 or side >= 8192:
                return rate
            side *= 2
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise LaminaError(f"{device} does not compute ({why}); choose another --device") from error
