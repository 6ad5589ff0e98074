"""Maps of four sizes from the maps of a plain ViT, which are all of one size (BEiT's and MAE's pyramid)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Pyramid(nn.Module):
    """Map i is brought to the power of two of its size that is nearest to one value for each `strides_px[i]`.

    For patches of 16 px and strides 4, 8, 16, 32: two transposed convolutions with a batch norm and a GELU
    between them, one, nothing, and a maximum over 2 x 2 (BEiT, arXiv 2106.08254, `fpn1` to `fpn4`; in
    mmsegmentation, `Feature2Pyramid`). Patches of 8 px start one level finer, of 14 px as those of 16.

    Args:
        width: D, channels of all maps, in and out.
        patch_px: side of a patch.
        strides_px: px of the image from one value of a map to the next, for each map.
    """

    def __init__(self, width: int, patch_px: int, strides_px: Sequence[int] = (4, 8, 16, 32)) -> None:
        super().__init__()
        self.levels = nn.ModuleList(_rescale(width, octaves(patch_px, stride)) for stride in strides_px)

    def forward(self, maps: Sequence[Float[Tensor, "B D h w"]]) -> list[Float[Tensor, "B D _ _"]]:
        """One map for each stride."""
        return [level(each) for level, each in zip(self.levels, maps, strict=True)]


def octaves(patch_px: int, stride_px: int) -> int:
    """How often a map with a value for each patch is doubled (or, below 0, halved) for a stride."""
    return round(math.log2(patch_px / stride_px))


def _rescale(width: int, times: int) -> nn.Module:
    if times == 0:
        return nn.Identity()
    if times < 0:
        # Published for even sides; of odd ones the last row and column are not lost.
        return nn.MaxPool2d(2**-times, ceil_mode=True)
    steps: list[nn.Module] = []
    for i in range(times):
        steps += [nn.BatchNorm2d(width), nn.GELU()] if i else []
        steps.append(nn.ConvTranspose2d(width, width, kernel_size=2, stride=2))
    return nn.Sequential(*steps)
