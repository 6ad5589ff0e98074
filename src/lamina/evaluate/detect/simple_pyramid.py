"""The simple feature pyramid: maps of several sizes from the last map of a plain ViT (ViTDet)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.evaluate.detect.head_options import SCALES, check_scales

POOLED = "pool"
"""Name of the coarsest map, which is used for proposals only."""


class SimplePyramid(nn.Module):
    """Li et al., arXiv 2203.16527, section 3: the map doubled twice, doubled, as it is, and halved, each with
    a 1 x 1 and a 3 x 3 convolution and layer norms over channels; then every other value of the coarsest.

    Of patches of 16 px and scales 4, 2, 1, 0.5 the maps have strides of 4, 8, 16, 32 and 64 px. Sides that do
    not halve evenly are rounded up.

    Args:
        width: D, channels of the map.
        patch_px: side of a patch.
        channels: of each map of the pyramid.
        scales: sizes of the maps over that of the given one, the largest first, each half of the one before.

    Raises:
        LaminaError: for scales that are none of 4, 2, 1, 0.5, or a width that they do not divide.
    """

    def __init__(
        self, width: int, patch_px: int, channels: int = 256, scales: Sequence[float] = (4.0, 2.0, 1.0, 0.5)
    ) -> None:
        super().__init__()
        check_scales(scales)
        if width % 4:
            raise LaminaError(f"an encoder of width {width} has no quarter for the pyramid; take another")
        self.names = [str(i) for i in range(len(scales))]
        self.strides = tuple(patch_px / scale for scale in (*scales, scales[-1] / 2))
        self.levels = nn.ModuleList(_level(width, channels, scale) for scale in scales)

    def forward(self, x: Float[Tensor, "B D h w"]) -> OrderedDict[str, Float[Tensor, "B channels _ _"]]:
        """The maps by their names, "0" the largest, and `POOLED`."""
        maps = OrderedDict((name, level(x)) for name, level in zip(self.names, self.levels, strict=True))
        maps[POOLED] = F.max_pool2d(maps[self.names[-1]], kernel_size=1, stride=2)
        return maps


def scales_for(patch_px: int) -> tuple[float, ...]:
    """Those whose strides are 4 px or more, which is the finest of ViTDet's; at least the coarsest."""
    return tuple(scale for scale in SCALES if patch_px / scale >= 4) or SCALES[-1:]


def _level(width: int, channels: int, scale: float) -> nn.Sequential:
    steps: list[nn.Module] = []
    if scale < 1:
        steps.append(nn.MaxPool2d(2, ceil_mode=True))
    for step in range(round(math.log2(scale)) if scale > 1 else 0):
        steps += [LayerNorm2d(width), nn.GELU()] if step else []
        steps.append(nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2))
        width //= 2
    steps += [nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels)]
    steps += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels)]
    return nn.Sequential(*steps)
