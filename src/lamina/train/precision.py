"""Mixed precision: autocast, the scale of float16 losses, and a warning on CPUs without bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.train.options import TrainOptions
from lamina.train.shares import together

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_SCALE = 1.0


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of the forward; with fp32 it does nothing."""
    return torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32")


def loss_scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """torch's dynamic loss scale for fp16; for the others one that does nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


@contextmanager
def tf32(device: torch.device, allowed: bool = True) -> Iterator[None]:
    """While this lasts, a GPU multiplies fp32 matrices in TF32, or does not; other devices have none.

    Torch has one setting for the whole process, which is put back at the end.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if allowed else "highest")
        torch.backends.cudnn.allow_tf32 = allowed
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def precision_warning(device: torch.device, precision: str) -> str | None:
    """A sentence for the user where bf16 would be emulated, which is many times slower than fp32."""
    if precision != "bf16" or device.type != "cpu" or cpu_has_bf16():
        return None
    return "this CPU has no bfloat16 arithmetic (AMX, AVX512-BF16): bf16 is many times slower than fp32"


def has_tf32(device: torch.device, options: TrainOptions) -> bool:
    """Whether `TrainOptions.tf32` changes the steps of a training on this device."""
    return device.type == "cuda" and options.precision == "fp32"


def tf32_warning(device: torch.device, options: TrainOptions) -> str | None:
    """A sentence for the user who asks for full fp32 where nothing is multiplied in TF32 anyhow."""
    if options.tf32 or has_tf32(device, options):
        return None
    where = f"with precision {options.precision}" if device.type == "cuda" else f"on the device {device.type}"
    return f"train.tf32 is false, which changes no step {where}"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (x86: AVX512-BF16 or AMX; Arm: BF16)."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    known = ask() if ask is not None else {}
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16"))


def scale_is_lost(scaler: Mapping[str, Any]) -> bool:
    """Whether a loss scaler's state (empty for other precisions than fp16) is of a scale that fits no
    float16: it halves at each overflow."""
    return float(scaler.get("scale", SMALLEST_SCALE)) < SMALLEST_SCALE


def check_scale(scaler: torch.amp.GradScaler) -> None:
    """Raise once no scale fits float16; waits for the device."""
    if scaler.is_enabled() and scale_is_lost(scaler.state_dict()):
        raise LaminaError(
            f"fp16 cannot hold this model's gradients (loss scale {scaler.get_scale():g}); go on with "
            "--resume and --precision bf16 or fp32"
        )


def gradient_norm(module: nn.Module, clip_grad: float | None) -> Float[Tensor, ""]:
    """The 2-norm of all gradients, which are then scaled down in place to at most `clip_grad`."""
    parameters = [p for p in module.parameters() if p.grad is not None]
    norm = together(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    if clip_grad is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip_grad, norm)
    return norm
