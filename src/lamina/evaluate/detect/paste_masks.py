"""A mask over a box as pixels of the image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def paste(mask: Float[Tensor, "m m"], box: Float[Tensor, "4"], size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """Where an object is more probable than not, in an image of `size`.

    Probabilities are those in the middles of the m x m cells that the box is cut into, 0 outside of it, and
    bilinear in between, read in the middle of each pixel, as in detectron2; torchvision moves boxes to whole
    px first, which much of a small object is lost by.
    """
    height, width = size
    canvas = torch.zeros(size, dtype=torch.bool)
    x1, y1, x2, y2 = box.tolist()
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(width, math.ceil(x2)), min(height, math.ceil(y2))
    if right <= left or bottom <= top or x2 <= x1 or y2 <= y1:
        return canvas
    x = ((torch.arange(left, right) + 0.5) - x1) / (x2 - x1) * 2 - 1
    y = ((torch.arange(top, bottom) + 0.5) - y1) / (y2 - y1) * 2 - 1
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    found = F.grid_sample(mask.float()[None, None], places, align_corners=False)
    canvas[top:bottom, left:right] = found[0, 0] >= 0.5
    return canvas
