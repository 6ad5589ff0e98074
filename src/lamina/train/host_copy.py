"""A copy of what a checkpoint holds in host memory, so that training may go on while it is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lamina.train.checkpoint import model_tensors


class HostCopy:
    """Memory on the host for one copy of a module and of its optimiser's state, which the next overwrites.

    The memory is not pinned: torch rounds pinned blocks up to powers of two, which would nearly double it.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def module(self, module: nn.Module) -> nn.Module:
        """The module with its parameters and buffers as they are now, in host memory.

        Parameters that no checkpoint holds (a frozen teacher) are those of the module itself. Waits for the
        device. Raises what `copy.deepcopy` raises of modules that cannot be copied.
        """
        saved = model_tensors(module)
        own: dict[int, object] = {}
        for name, parameter in module.named_parameters():
            own[id(parameter)] = parameter
            if name in saved:
                kept = self._kept(f"module.{name}", parameter)
                own[id(parameter)] = nn.Parameter(kept, parameter.requires_grad)
        for name, buffer in module.named_buffers():
            own[id(buffer)] = self._kept(f"module.{name}", buffer)
        return copy.deepcopy(module, own)

    def tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """These tensors as they are now, in host memory."""
        return {name: self._kept(f"optimizer.{name}", tensor) for name, tensor in tensors.items()}

    def _kept(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor's copy. Its memory is allocated once, unless the tensor has another shape by now."""
        held = self._held.get(name)
        if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
            held = self._held[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return held.copy_(tensor.detach())
