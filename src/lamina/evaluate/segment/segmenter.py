"""The network of segmentation: an encoder, perhaps frozen, and a head that gives every pixel a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import torch.nn.functional as F
from jaxtyping import Float, Integer, Shaped
from torch import Tensor, nn

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.data.dense.sources import IGNORE
from lamina.encoder.encoder import Encoder
from lamina.evaluate.dense.encoder import DenseTask
from lamina.evaluate.segment.feature_maps import Logits, Taps, read_taps, resize_maps


@runtime_checkable
class Head(Protocol):
    """A head: logits from the outputs of its `blocks`, after the final norm where it is `normed`."""

    @property
    def blocks(self) -> Sequence[int]: ...

    @property
    def normed(self) -> bool: ...

    def __call__(self, taps: Taps) -> Logits: ...


class Segmenter(DenseTask):
    """Cross-entropy of every pixel's class, `IGNORE` aside.

    As in mmsegmentation the sum is divided by all pixels, so that an image counts by what of it has a class,
    and the loss of a batch is the mean of its parts.

    Args:
        encoder, frozen: as `DenseTask`.
        head: an `nn.Module` that is a `Head`.
    """

    def __init__(self, encoder: Encoder, head: nn.Module, frozen: bool = False) -> None:
        super().__init__(encoder, frozen)
        self.head = head
        if not self._read.normed:  # it would wait for a gradient in vain
            encoder.norm.requires_grad_(False)
        for block in list(encoder.vit.blocks)[max(self._read.blocks) + 1 :]:
            block.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch whose labels are maps, that of an auxiliary head within, and the share of
        pixels that are right."""
        labels = batch.labels
        if labels is None or labels.ndim != 3:
            raise LaminaError("segmentation learns from a class for each pixel; give images with masks")
        labels = labels.long()
        output = self._output(batch.images)
        logits = resize_maps(output.main.float(), labels.shape[-2:])
        loss = pixel_loss(logits, labels)
        terms = {"loss": loss}
        if output.aux is not None:
            aux = pixel_loss(resize_maps(output.aux.float(), labels.shape[-2:]), labels)
            terms = {"loss": loss + output.share * aux, "loss_main": loss, "loss_aux": aux}
        counted = labels != IGNORE
        right = ((logits.argmax(1) == labels) & counted).sum()
        return {**terms, "pixel_accuracy": right / counted.sum().clamp(min=1)}

    def logits(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits of every pixel (images as uint8, or float on [0, 1]), in float32."""
        return resize_maps(self._output(images).main.float(), images.shape[-2:])

    @property
    def _read(self) -> Head:
        """The head as what it says of itself."""
        return cast(Head, self.head)

    def _output(self, images: Tensor) -> Logits:
        with self.reading():
            taps = read_taps(self.encoder, images, self._read.blocks, self._read.normed)
        return self._read(taps)


def pixel_loss(logits: Float[Tensor, "B K H W"], labels: Integer[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """The sum of the pixels' cross-entropies over the number of all pixels; `IGNORE` counts 0."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / labels.numel()
