"""The epsilon of layer norms, which no tensor of a weights file tells."""

from __future__ import annotations

from torch import nn


def set_epsilon(module: nn.Module, eps: float) -> None:
    """Give all layer norms that epsilon."""
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            child.eps = eps


def epsilon_of(module: nn.Module) -> float | None:
    """That of the first layer norm; None where there is none."""
    return next((child.eps for child in module.modules() if isinstance(child, nn.LayerNorm)), None)
