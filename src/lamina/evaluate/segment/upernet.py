"""UperNet: pyramid pooling and a feature pyramid network on four maps, with an auxiliary head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.evaluate.segment.feature_maps import Logits, Taps, choose_blocks, resize_maps
from lamina.evaluate.segment.head_options import UperOptions
from lamina.evaluate.segment.pyramid import Pyramid

BLOCKS = (3, 5, 7, 11)
"""Blocks of a network of twelve, as MAE and BEiT have them."""
_AUX_LEVEL = 2


class UperNet(nn.Module):
    """Xiao et al., "Unified Perceptual Parsing for Scene Understanding", ECCV 2018, arXiv 1807.10221, on the
    maps of a plain ViT as in BEiT and MAE: blocks without the final norm, made a pyramid; an FCN of one
    convolution on the map of stride 16 adds its loss in training."""

    normed = False

    def __init__(self, encoder: Encoder, n_classes: int, options: UperOptions) -> None:
        super().__init__()
        width = encoder.width
        self.blocks = choose_blocks(encoder.depth, options.blocks, BLOCKS)
        self.share = options.aux_share
        self.pyramid = Pyramid(width, encoder.patch[0], options.strides_px)
        channels = options.channels or width
        self.head = UPerHead((width,) * 4, channels, n_classes, options.pools, options.dropout)
        self.aux = None
        if options.aux_share:
            self.aux = nn.Sequential(
                convolution(width, options.aux_channels, 3),
                nn.Dropout2d(options.dropout),
                classifier(options.aux_channels, n_classes),
            )

    def forward(self, taps: Taps) -> Logits:
        """Logits at the pyramid's finest size.

        Raises:
            LaminaError: for a single image in training, whose map pooled to 1 x 1 has no variance.
        """
        maps = self.pyramid(taps.maps)
        main = self.head(maps)
        if self.aux is None or not self.training:
            return Logits(main)
        return Logits(main, self.aux(maps[_AUX_LEVEL]), self.share)


class UPerHead(nn.Module):
    """Maps, the finest first, to logits at the size of the first.

    Args:
        in_channels: of each map. channels: of the head. n_classes, pools, dropout: see `UperOptions`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        n_classes: int,
        pools: Sequence[int] = (1, 2, 3, 6),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), convolution(coarsest, channels, 1)) for side in pools
        )
        self.pooled = convolution(coarsest + len(pools) * channels, channels, 3)
        self.lateral = nn.ModuleList(convolution(own, channels, 1) for own in finer)
        self.smooth = nn.ModuleList(convolution(channels, channels, 3) for _ in finer)
        self.fuse = convolution(len(in_channels) * channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = classifier(channels, n_classes)

    def forward(self, maps: Sequence[Float[Tensor, "B _ _ _"]]) -> Float[Tensor, "B K h w"]:
        """Logits; raises as `UperNet.forward`."""
        if self.training and len(maps[0]) < 2 and isinstance(self.pools[0][1][1], nn.BatchNorm2d):  # type: ignore[index]
            raise LaminaError(
                "UperNet's batch norm of a map pooled to 1 x 1 needs two images or more at a time; give a "
                "larger train.batch_size or train.micro_batch_size"
            )
        coarsest = maps[-1]
        pooled = [resize_maps(pool(coarsest), coarsest.shape[-2:]) for pool in self.pools]
        levels = [lateral(own) for lateral, own in zip(self.lateral, maps[:-1], strict=True)]
        levels.append(self.pooled(torch.cat([coarsest, *pooled], dim=1)))
        for i in range(len(levels) - 2, -1, -1):  # from the coarsest down
            levels[i] = levels[i] + resize_maps(levels[i + 1], levels[i].shape[-2:])
        smoothed = [smooth(level) for smooth, level in zip(self.smooth, levels[:-1], strict=True)]
        alike = [resize_maps(level, smoothed[0].shape[-2:]) for level in (*smoothed, levels[-1])]
        logits: Tensor = self.classifier(self.dropout(self.fuse(torch.cat(alike, dim=1))))
        return logits


def convolution(channels: int, out: int, side: int) -> nn.Sequential:
    """A convolution that keeps the size, with batch norm and ReLU; He's normal start (mmcv's)."""
    conv = nn.Conv2d(channels, out, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU())


def classifier(channels: int, n_classes: int) -> nn.Conv2d:
    """One matrix for all places, near zero at first (standard deviation 0.01, mmsegmentation's)."""
    conv = nn.Conv2d(channels, n_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
