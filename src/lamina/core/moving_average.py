"""Averages of weights over the steps of a training, held by a slow copy of a network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def follow(slow: Iterable[Tensor], own: Iterable[Tensor], share: float) -> None:
    """Move each slow tensor towards its own one, in place: slow + share * (own - slow).

    All pairs are moved by one call, which a GPU does in a few kernels; nothing waits for it.
    """
    torch._foreach_lerp_(list(slow), list(own), share)
