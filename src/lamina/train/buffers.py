"""Buffers of a module as they were before a step, put back where the step is not to count."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BufferKeeper:
    """Keeps a copy of each buffer that a forward may change, such as the running means of a batch-norm.

    A step that is skipped for a loss that is not finite has changed them already. Copied are the buffers of
    all parts in training mode, at each step, since batch-norm's kernels do not tell that they wrote.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = {
            name: part for name, part in module.named_modules() if list(part.buffers(recurse=False))
        }
        self._copies: dict[str, Tensor] = {}
        self._kept: dict[str, tuple[nn.Module, str]] = {}

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the buffers as they are; call it before each step."""
        self._kept = {
            f"{prefix}.{name}": (part, name)
            for prefix, part in self._parts.items()
            if part.training
            for name, _ in part.named_buffers(recurse=False)
        }
        for name, (part, attribute) in self._kept.items():
            buffer = part.get_buffer(attribute)
            copy = self._copies.get(name)
            if copy is None or copy.shape != buffer.shape or copy.dtype != buffer.dtype:
                self._copies[name] = buffer.clone()
            else:
                copy.copy_(buffer)

    @torch.no_grad()
    def put_back(self, skip: Float[Tensor, ""]) -> None:
        """Where `skip` is above 0, give the buffers their values of the last `keep`, once. What is written
        afterwards counts. Nothing waits for the device."""
        for name, (part, attribute) in self._kept.items():
            buffer = part.get_buffer(attribute)
            buffer.copy_(torch.where(skip.to(buffer.device) > 0, self._copies[name], buffer))
        self._kept = {}
