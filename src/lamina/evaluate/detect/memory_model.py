"""A detector's forward without its data: every region that could be there, for counting memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lamina.core.batch import Batch
from lamina.evaluate.detect.detector import Detector
from lamina.evaluate.detect.head_options import HeadOptions
from lamina.evaluate.detect.mask_rcnn import BOX_SIDE, MASK_SIDE


class MemoryModel(nn.Module):
    """The forward of a `Detector` with as many regions as an image can have.

    Which regions there are depends on numbers, and torch's "meta" device has none. Matching and thinning of
    regions, which keep nothing for the backward pass, are left out.
    """

    def __init__(self, detector: Detector, head: HeadOptions) -> None:
        super().__init__()
        self.detector, self.head = detector, head

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The sum of all outputs in place of a loss."""
        maps = self.detector.maps(batch.images)
        proposed = self.detector.rpn.head(list(maps.values()))
        outputs = [each for kind in proposed for each in kind]
        heads, n = self.detector.roi_heads, len(batch) * self.head.region_samples
        regions = _regions(n, self.head.channels, BOX_SIDE)
        outputs += heads.box_predictor(heads.box_head(regions))
        if heads.has_mask():
            regions = _regions(n // 4, self.head.channels, MASK_SIDE)
            outputs.append(heads.mask_predictor(heads.mask_head(regions)))
        return {"loss": torch.stack([each.sum() for each in outputs]).sum()}


def _regions(n: int, channels: int, side: int) -> Tensor:
    return torch.empty(n, channels, side, side, requires_grad=True)
