"""A linear head: batch norm, dropout and one matrix on every patch of the last block, or of several."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lamina.core.ranges import check_blocks
from lamina.encoder.encoder import Encoder
from lamina.evaluate.segment.feature_maps import Logits, Taps
from lamina.evaluate.segment.head_options import LinearHeadOptions
from lamina.evaluate.segment.upernet import classifier


class LinearHead(nn.Module):
    """DINOv2's (arXiv 2304.07193, section 7.4) and DINOv3's linear segmentation: block outputs after the
    encoder's final norm, batch norm, dropout, a matrix; logits of patches are resized to the image
    bilinearly."""

    normed = True

    def __init__(self, encoder: Encoder, n_classes: int, options: LinearHeadOptions) -> None:
        super().__init__()
        self.blocks = (encoder.depth - 1,) if options.blocks is None else options.blocks
        check_blocks("linear.blocks", self.blocks, encoder.depth)
        channels = encoder.width * len(self.blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout2d(options.dropout)
        self.classifier = classifier(channels, n_classes)

    def forward(self, taps: Taps) -> Logits:
        """Logits of each patch."""
        values: Tensor = torch.cat(taps.maps, dim=1)
        return Logits(self.classifier(self.dropout(self.norm(values))))
