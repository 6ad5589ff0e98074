"""A look at a module in training that leaves its modes as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Whatever happens inside, each submodule has its own mode (training or evaluation) back afterwards.

    (`module.train()` would put frozen submodules into training mode too.)
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each submodule has its own mode back."""
    with modes_kept(module), torch.no_grad():
        module.eval()
        yield
