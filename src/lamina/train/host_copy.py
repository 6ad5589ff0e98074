"""A copy of what a checkpoint holds in host memory, so that training may go on while it is written."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lamina.core.terminal import why
from lamina.train.checkpoint import model_tensors


class NotCopied(Exception):
    """Why no copy can be made in host memory: there is no room, or a part of the module refuses."""


class HostCopy:
    """Memory on the host for one copy of a module and of its optimiser's state, which the next overwrites.

    The memory is not pinned: torch rounds pinned blocks up to powers of two, which would nearly double it.
    """

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def module(self, module: nn.Module) -> nn.Module:
        """The module with its parameters and buffers as they are now, in host memory.

        Parameters that no checkpoint holds (a frozen teacher) are those of the module itself. Waits for the
        device, whose errors are raised as they are.

        Raises:
            NotCopied: where there is no host memory for it, or `copy.deepcopy` cannot copy the module.
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
        try:
            return copy.deepcopy(module, own)
        except torch.AcceleratorError:
            raise
        except Exception as error:  # whatever a part of a module raises
            raise NotCopied(f"{type(error).__name__}: {why(error)}") from error

    def tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """These tensors as they are now, in host memory; raises `NotCopied` where there is no room."""
        return {name: self._kept(f"optimizer.{name}", tensor) for name, tensor in tensors.items()}

    def _kept(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor's copy. Its memory is allocated once, unless the tensor has another shape by now."""
        held = self._held.get(name)
        if held is None or held.shape != tensor.shape or held.dtype != tensor.dtype:
            try:
                held = self._held[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
            except RuntimeError as error:  # torch's error of a host without room has no type of its own
                raise NotCopied(why(error)) from error
        return held.copy_(tensor.detach())
