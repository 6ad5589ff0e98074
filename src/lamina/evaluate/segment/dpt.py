"""DPT: the decoder of segmentation-models-pytorch on the outputs of our encoder."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.evaluate.segment.feature_maps import Logits, Taps, choose_blocks
from lamina.evaluate.segment.head_options import DPTOptions

BLOCKS = (2, 5, 8, 11)
"""Blocks of a network of twelve, as DPT for ViT-B has them."""
_COARSEST_PX = 32


class DPT(nn.Module):
    """Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021, arXiv 2103.13413.

    Blocks are read without the final norm; the class token is read beside each patch ("project"), where there
    is one. Grids whose sides the decoder does not halve evenly are continued by their last row and column,
    and what was added is cut off again. Patches of another size than a power of two count as the nearest.

    Raises:
        LaminaError: where segmentation-models-pytorch is not installed.
    """

    normed = False

    def __init__(self, encoder: Encoder, n_classes: int, options: DPTOptions) -> None:
        super().__init__()
        decoder, head = _parts()
        self.blocks = choose_blocks(encoder.depth, options.blocks, BLOCKS)
        self.stride = 2 ** round(math.log2(encoder.patch[0]))
        self.reads_cls = encoder.n_class > 0
        self.decoder = decoder(
            encoder_out_channels=(encoder.width,) * len(BLOCKS),
            encoder_output_strides=(self.stride,) * len(BLOCKS),
            encoder_has_prefix_tokens=self.reads_cls,
            readout="cat" if self.reads_cls else "ignore",
            intermediate_channels=options.reassemble or _channels(encoder.width),
            fusion_channels=options.channels,
        )
        self.head = head(in_channels=options.channels, out_channels=n_classes)

    def forward(self, taps: Taps) -> Logits:
        """Logits at `stride` values for a patch, which for patches of 16 px is the image's size."""
        height, width = taps.maps[0].shape[-2:]
        maps = [self._even(each) for each in taps.maps]
        cls: list[Tensor | None] = [None] * len(maps)
        if self.reads_cls and taps.cls is not None:
            cls = [each[:, None] for each in taps.cls]
        logits = self.head(self.decoder(maps, cls))
        return Logits(logits[..., : height * self.stride, : width * self.stride])

    def _even(self, values: Float[Tensor, "B D h w"]) -> Float[Tensor, "B D h2 w2"]:
        """Continued to sides that are whole at the coarsest scale."""
        multiple = max(1, _COARSEST_PX // self.stride)
        down, right = (-side % multiple for side in values.shape[-2:])
        return F.pad(values, (0, right, 0, down), mode="replicate") if down or right else values


def check_dpt() -> None:
    """Raise where DPT's decoder is not installed."""
    _parts()


def _parts() -> tuple[Any, Any]:
    try:
        from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder, DPTSegmentationHead
    except ImportError:
        raise LaminaError(
            "DPT needs segmentation-models-pytorch; pip install 'lamina[dense]', or take another --head"
        ) from None
    return DPTDecoder, DPTSegmentationHead


def _channels(width: int) -> tuple[int, int, int, int]:
    if width >= 1024:
        return 256, 512, 1024, 1024
    return width // 8, width // 4, width // 2, width
