"""A trained classifier that sees images as it did in its own training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lamina.core.batch import unit_float


class Standardised(nn.Module):
    """A network behind the normalisation that it was trained with, as `Supervised` wants a teacher.

    Args:
        net: normalised images to logits.
        mean, std: channel statistics on [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits of images (uint8, or float on [0, 1])."""
        return self.net((unit_float(images) - self.mean) / self.std)  # type: ignore[no-any-return]
