"""The network of detection: a plain ViT, its pyramid, and torchvision's Mask R-CNN on it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from lamina.core.batch import Batch, Objects
from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.evaluate.dense.encoder import DenseTask
from lamina.evaluate.detect.head_options import AttentionOptions, HeadOptions
from lamina.evaluate.detect.mask_rcnn import build_rcnn
from lamina.evaluate.detect.simple_pyramid import SimplePyramid, scales_for
from lamina.evaluate.detect.window_attention import limit_attention, patch_map


class Detections(NamedTuple):
    """The detections in an image, highest score first: boxes as in `Objects`, scores in [0, 1], and, where
    masks were learned, how probable the object is in a grid over its box."""

    boxes: Float[Tensor, "n 4"]
    labels: Int64[Tensor, "n"]
    scores: Float[Tensor, "n"]
    masks: Float[Tensor, "n 28 28"] | None


class Detector(DenseTask):
    """He et al., "Mask R-CNN", ICCV 2017, arXiv 1703.06870, on a plain ViT as in ViTDet (arXiv 2203.16527).

    torchvision's own resizing and normalisation are left out: windows come in one size, and the encoder
    normalises. Crowds teach nothing; images without objects teach what is none.

    Args:
        encoder, frozen: as `DenseTask`; the encoder's attention is changed in place (`limit_attention`).
        n_classes: how many classes labels count.
        attention, head: options.

    Raises:
        LaminaError: for patches that are no squares, or options that do not fit the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_classes: int,
        attention: AttentionOptions,
        head: HeadOptions,
        frozen: bool = False,
    ) -> None:
        super().__init__(encoder, frozen)
        rows, columns = encoder.patch
        if rows != columns:
            raise LaminaError(f"patches of {rows} x {columns} px are no squares, which detection needs")
        limit_attention(encoder, attention)
        scales = head.scales or scales_for(rows)
        self.pyramid = SimplePyramid(encoder.width, rows, head.channels, scales)
        names, strides = self.pyramid.names, self.pyramid.strides
        rcnn = build_rcnn(_Channels(head.channels), names, strides, rows, n_classes, head)
        self.rpn, self.roi_heads = rcnn.rpn, rcnn.roi_heads

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """In training mode the sum of torchvision's losses, and each of them; regions are sampled by torch's
        own generator.

        Raises:
            LaminaError: for a batch without objects' boxes.
        """
        if batch.objects is None:
            raise LaminaError("detection learns from boxes; give images with objects")
        targets = [target_of(objects, self.roi_heads.has_mask()) for objects in batch.objects]
        maps, images = self.maps(batch.images), _listed(batch.images)
        proposals, terms = self.rpn(images, maps, targets)
        _, more = self.roi_heads(maps, proposals, images.image_sizes, targets)
        terms = {**terms, **more}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}

    @torch.no_grad()
    def detect(
        self, images: Shaped[Tensor, "B C H W"], sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Detections]:
        """In evaluation mode, what is found in windows (uint8, or float on [0, 1]); `sizes` are the height
        and width of what each window shows of an image, where that does not fill it."""
        maps, listed = self.maps(images), _listed(images, sizes)
        proposals, _ = self.rpn(listed, maps)
        found, _ = self.roi_heads(maps, proposals, listed.image_sizes)
        return [
            Detections(
                each["boxes"],
                each["labels"] - 1,
                each["scores"],
                each["masks"][:, 0] if "masks" in each else None,
            )
            for each in found
        ]

    def maps(self, images: Shaped[Tensor, "B C H W"]) -> OrderedDict[str, Float[Tensor, "B channels _ _"]]:
        """The pyramid of images."""
        with self.reading():
            last = patch_map(self.encoder, images)
        return self.pyramid(last)  # type: ignore[no-any-return]


class _Channels(nn.Module):
    """A backbone as far as torchvision's constructor reads one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels


def target_of(objects: Objects, masks: bool = True) -> dict[str, Tensor]:
    """An image's objects as torchvision takes them: without crowds, label 0 for the background."""
    objects = objects.take(~objects.crowd)
    target = {"boxes": objects.boxes, "labels": objects.labels + 1}
    return {**target, "masks": objects.masks.to(torch.uint8)} if masks else target


def _listed(images: Shaped[Tensor, "B C H W"], sizes: Sequence[tuple[int, int]] | None = None) -> ImageList:
    return ImageList(images, list(sizes or [(images.shape[-2], images.shape[-1])] * len(images)))
