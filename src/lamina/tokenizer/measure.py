"""How well a tokenizer names images: how many ids it uses, and how well images come back from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from lamina.core.batch import Batch, unit_float
from lamina.core.errors import LaminaError
from lamina.core.frozen import device_of, eval_mode
from lamina.tokenizer.vae import DiscreteVAE


@dataclass(frozen=True)
class TokenizerResult:
    """Measured on images that the tokenizer was not trained on."""

    images: int
    psnr: float
    """PSNR of the reconstruction in dB: 10 log10(1 / mean squared error) over all pixels on [0, 1]."""
    psnr_of_means: float
    """The same with the mean colour of each 8 x 8 px in place of the reconstruction."""
    vocabulary: int
    used: int
    """Ids that occur at least once."""
    perplexity: float
    """exp of the entropy of the ids: as many, equally frequent, would be as hard to guess."""
    counts: tuple[int, ...]
    """How often each id occurs."""

    @property
    def share_used(self) -> float:
        """Share of the vocabulary that occurs."""
        return self.used / self.vocabulary

    def to_json(self) -> dict[str, Any]:
        """Everything but the counts."""
        return {**{k: v for k, v in vars(self).items() if k != "counts"}, "share_used": self.share_used}

    def __str__(self) -> str:
        return (
            f"{self.images} held-out images: PSNR {self.psnr:.2f} dB (mean colour of each 8 x 8 px: "
            f"{self.psnr_of_means:.2f} dB); {self.used} of {self.vocabulary} ids in use "
            f"({100 * self.share_used:.0f} %), perplexity {self.perplexity:.0f}"
        )


def measure_tokenizer(tokenizer: DiscreteVAE, batches: Iterable[Batch]) -> TokenizerResult:
    """Read images in batches, name them and bring them back. Raises `LaminaError` where there is no image."""
    device = device_of(tokenizer)
    squares = torch.zeros(2, dtype=torch.float64)
    counts = torch.zeros(tokenizer.vocabulary, dtype=torch.int64)
    n_images, n_values = 0, 0
    with eval_mode(tokenizer):
        for batch in batches:
            images = unit_float(batch.images.to(device)).float()
            ids = tokenizer.ids(images)
            for k, made in enumerate((tokenizer.decode(ids), patch_means(images, tokenizer.stride))):
                squares[k] += (made - images).double().square().sum().cpu()
            counts += torch.bincount(ids.flatten().cpu(), minlength=tokenizer.vocabulary)
            n_images, n_values = n_images + len(images), n_values + images.numel()
    if not n_images:
        raise LaminaError("there is no held-out image to measure the tokenizer on; give more images")
    psnr, of_means = (-10 * (squares / n_values).log10()).tolist()
    return TokenizerResult(
        n_images,
        psnr,
        of_means,
        tokenizer.vocabulary,
        int((counts > 0).sum()),
        perplexity(counts),
        tuple(counts.tolist()),
    )


def patch_means(images: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B C H W"]:
    """Each square of `side` px in its mean colour."""
    return F.interpolate(F.avg_pool2d(images, side), scale_factor=side, mode="nearest")


def perplexity(counts: Int64[Tensor, "V"]) -> float:
    """exp(-sum p log p) of the relative frequencies p."""
    share = counts.double() / counts.sum()
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))
