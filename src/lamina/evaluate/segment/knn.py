"""kNN segmentation: a patch has the classes of the training patches whose frozen features are nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Integer, Shaped
from torch import Tensor, nn

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.ranges import check_blocks
from lamina.core.rng import Purpose, uniform
from lamina.data.dense.sources import IGNORE
from lamina.encoder.encoder import Encoder
from lamina.evaluate.segment.feature_maps import read_taps, resize_maps
from lamina.evaluate.segment.head_options import KNNHeadOptions
from lamina.evaluate.segment.miou import count_image, mean_iou
from lamina.features.nearest import nearest


@dataclass(frozen=True)
class Bank:
    """Training patches: features, the share of each class among the pixels that have one, and which image
    they are of."""

    features: Float[Tensor, "n D"]
    shares: Float[Tensor, "n K"]
    images: Int64[Tensor, "n"]

    def take(self, rows: Bool[Tensor, "n"]) -> Bank:
        """Some of the patches."""
        return Bank(self.features[rows], self.shares[rows], self.images[rows])

    def standardiser(self) -> Callable[[Float[Tensor, "q D"]], Float[Tensor, "q D"]]:
        """Takes off the mean of the bank's features, and divides by their standard deviation."""
        mean, std = self.features.mean(0), self.features.std(0, correction=0).clamp(min=1e-6)
        return lambda features: (features - mean) / std


class KNNSegmenter(nn.Module):
    """Patches of an image vote by their neighbours in a bank, by cosine of features that are standardised by
    the bank's mean and deviation; each neighbour gives its classes in the shares that they have of it. The
    votes are resized to the image bilinearly, and the largest wins.

    CAPI compares patches of images squeezed to 224 px and lets neighbours vote pixel by pixel within a patch;
    distance and k are chosen as here, but cosine is one of two.
    """

    def __init__(self, encoder: Encoder, bank: Bank, k: int, block: int) -> None:
        super().__init__()
        self.encoder, self.k, self.block = encoder, min(k, len(bank.features)), block
        self.standardise = bank.standardiser()
        self.features = self.standardise(bank.features)
        self.shares = bank.shares

    def logits(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Votes for every class at every pixel: shares that add up to 1."""
        rows, columns = self.encoder.grid_of(images)
        queries = self.standardise(_features(self.encoder, images, self.block).flatten(0, 1))
        votes = torch.cat(
            [self.shares[found.rows].mean(1) for found in nearest(self.features, queries, self.k)]
        )
        maps = votes.view(len(images), rows, columns, -1).permute(0, 3, 1, 2)
        return resize_maps(maps, images.shape[-2:])


@torch.inference_mode()
def build_bank(
    encoder: Encoder,
    batches: Iterator[Batch],
    n_images: int,
    n_classes: int,
    options: KNNHeadOptions,
    device: torch.device,
) -> Bank:
    """Store patches of the first `n_images` images of training batches.

    Of each image the same number, those with the smallest random numbers of its key; patches without a pixel
    that has a class are left out.

    Raises:
        LaminaError: where no patch has a class.
    """
    block = block_of(encoder, options)
    each = -(-options.patches // n_images)
    parts: list[Bank] = []
    done = 0
    for batch in batches:
        assert batch.labels is not None
        assert batch.keys is not None
        features = _features(encoder, batch.images.to(device), block)
        shares = class_shares(batch.labels.to(device), encoder.patch, n_classes)
        order = uniform(batch.keys, features.shape[1], Purpose.PATCHES).argsort(dim=1, stable=True)[:, :each]
        for i in range(min(len(batch), n_images - done)):
            rows = order[i].to(device)
            labelled = shares[i, rows].sum(1) > 0
            rows = rows[labelled]
            own = torch.full((len(rows),), done + i, device=device)
            parts.append(Bank(features[i, rows], shares[i, rows], own))
        done += min(len(batch), n_images - done)
    bank = Bank(*(torch.cat(tensors) for tensors in zip(*(vars(p).values() for p in parts), strict=True)))
    if not len(bank.features):
        raise LaminaError("no patch of the training images has a class; label some")
    return bank


def choose_k(bank: Bank, k: Sequence[int]) -> tuple[int, dict[int, float]]:
    """The k with the best mIoU of patches' most frequent classes, when the last tenth of the bank's images is
    classified by the others; and the mIoU of each k. Of equal ones the first listed."""
    if len(k) == 1:
        return k[0], {}
    n = int(bank.images.max()) + 1
    held = bank.images >= n - max(1, n // 10)
    if held.all() or not held.any():
        return k[0], {}
    known, held_out = bank.take(~held), bank.take(held)
    standardise = known.standardiser()
    standard, queries = standardise(known.features), standardise(held_out.features)
    found = list(nearest(standard, queries, min(max(k), len(standard))))
    rows = torch.cat([part.rows for part in found])
    truth, n_classes = held_out.shares.argmax(1), held_out.shares.shape[1]
    scores = {}
    for value in k:
        predicted = known.shares[rows[:, :value]].mean(1).argmax(1)
        scores[value] = float(mean_iou(count_image(predicted[None], truth[None], n_classes)))
    return max(scores, key=lambda value: scores[value]), scores


def class_shares(
    labels: Integer[Tensor, "B H W"], patch: tuple[int, int], n_classes: int
) -> Float[Tensor, "B N K"]:
    """The share of each class among the pixels of each patch that have one; zeros where none has."""
    b, height, width = labels.shape
    rows, columns = height // patch[0], width // patch[1]
    tiles = labels.long().view(b, rows, patch[0], columns, patch[1]).transpose(2, 3).flatten(3)
    counted = tiles != IGNORE
    one = counted.float()
    sums = torch.zeros(b, rows, columns, n_classes, device=labels.device)
    sums.scatter_add_(3, torch.where(counted, tiles, 0), one)
    return (sums / one.sum(3, keepdim=True).clamp(min=1)).flatten(1, 2)


def block_of(encoder: Encoder, options: KNNHeadOptions) -> int:
    """The block that is compared; raises where the encoder has none such."""
    block = encoder.depth - 1 if options.block is None else options.block
    check_blocks("knn.block", (block,), encoder.depth)
    return block


def _features(encoder: Encoder, images: Tensor, block: int) -> Float[Tensor, "B N D"]:
    (values,) = read_taps(encoder, images, (block,), normed=True).maps
    return values.flatten(2).transpose(1, 2)
