"""A small tokenizer that is trained on one's own images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from lamina.core.batch import Batch, unit_float
from lamina.core.errors import LaminaError
from lamina.core.text import counted


class DiscreteVAE(nn.Module):
    """An autoencoder whose latent has one of `vocabulary` values for each 8 x 8 px.

    Finite scalar quantisation (Mentzer et al., arXiv 2309.15505): each of a few bounded latent numbers is
    rounded to one of `levels`, gradients pass straight through, and the id counts their combinations. There
    is no codebook to collapse, no temperature to anneal and nothing that moves outside the gradient, so runs
    of several ranks and micro-batches train the same network. Gumbel-softmax in the same networks, hardly
    tuned, used a sixth as many words here and brought images back worse. A task for `fit`.

    Args:
        levels: values of each latent number, 2 or more; their product is the vocabulary.
        width: channels at a quarter of the image's size; twice as many at an eighth.
        depth: residual blocks at an eighth, in the encoder and in the decoder.
        in_chans: channels of the images.

    Raises:
        LaminaError: for levels below 2, for images of other channels, and of sides that are no multiples of
            8 px.
    """

    stride = 8

    def __init__(
        self, levels: Sequence[int] = (8, 8, 8, 4, 4), width: int = 64, depth: int = 2, in_chans: int = 3
    ) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise LaminaError(
                f"levels {tuple(levels)} of a tokenizer: give one number or more, each at least 2"
            )
        self.levels, self.in_chans = tuple(levels), in_chans
        wide = 2 * width
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * in_chans, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(width, wide, 4, stride=2, padding=1),
            *(Residual(wide) for _ in range(depth)),
            nn.Conv2d(wide, len(levels), 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(len(levels), wide, 3, padding=1),
            *(Residual(wide) for _ in range(depth)),
            nn.Conv2d(wide, 4 * width, 1),
            nn.PixelShuffle(2),
            nn.GELU(),
            nn.Conv2d(width, 16 * in_chans, 3, padding=1),
            nn.PixelShuffle(4),
        )

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return math.prod(self.levels)

    def forward(self, batch: Batch | Shaped[Tensor, "B C H W"]) -> dict[str, Tensor]:
        """Three terms: "loss", mean squared error of values on [-1, 1]; "psnr" in dB; "used", the share of
        the ids that occur in the batch."""
        images = unit_float(batch.images if isinstance(batch, Batch) else batch)
        codes = self._codes(images)
        values: Tensor = self.decoder(self._scaled(codes)).float()
        error = (values - (2 * images.float() - 1)).square().mean()
        with torch.no_grad():
            psnr = -10 * (error.detach() / 4).clamp_min(1e-12).log10()
            used = torch.zeros(self.vocabulary, device=images.device)
            used[self._number(codes).flatten()] = 1.0
        return {"loss": error, "psnr": psnr, "used": used.mean()}

    def after_step(self, step: int) -> None:
        """Nothing moves but by the gradient."""

    @torch.no_grad()
    def ids(self, images: Shaped[Tensor, "B C H W"]) -> Int64[Tensor, "B h w"]:
        """The id of each 8 x 8 px of images (uint8, or float on [0, 1])."""
        return self._number(self._codes(unit_float(images)))

    @torch.no_grad()
    def decode(self, ids: Int64[Tensor, "B h w"]) -> Float[Tensor, "B C H W"]:
        """Images on [0, 1] of ids."""
        digits = []
        for levels in self.levels:
            digits.append(ids % levels)
            ids = ids // levels
        values: Tensor = self.decoder(self._scaled(torch.stack(digits, dim=1).float())).float()
        return ((values + 1) / 2).clamp(0, 1)

    def _codes(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B d h w"]:
        """Whole numbers from 0 to levels - 1; their gradient is that of the bounded latent."""
        check_images(images, self.in_chans, self.stride)
        # Rounding in less than float32 would make ids depend on the precision twice.
        latent: Tensor = self.encoder(2 * images - 1).float()
        bounded = self._top(images) * latent.sigmoid()
        return bounded + (bounded.round() - bounded).detach()

    def _scaled(self, codes: Float[Tensor, "B d h w"]) -> Float[Tensor, "B d h w"]:
        """Codes on [-1, 1]."""
        return 2 * codes / self._top(codes) - 1

    def _top(self, like: Tensor) -> Float[Tensor, "d 1 1"]:
        return torch.tensor(self.levels, device=like.device).float().view(-1, 1, 1) - 1

    def _number(self, codes: Float[Tensor, "B d h w"]) -> Int64[Tensor, "B h w"]:
        """Digits as one number, the first latent the lowest digit."""
        codes = codes.detach().nan_to_num()  # a training that diverged is told by its loss, not by an index
        number = torch.zeros_like(codes[:, 0], dtype=torch.int64)
        for k in reversed(range(len(self.levels))):
            number = number * self.levels[k] + codes[:, k].round().long()
        return number


class Residual(nn.Module):
    """x + two convolutions, each after a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.GELU(), nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
        )

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The block's output, of the same shape."""
        result: Tensor = x + self.path(x)
        return result


def check_images(images: Shaped[Tensor, "B C H W"], in_chans: int, stride: int) -> None:
    """Raises `LaminaError` for images that a tokenizer of `in_chans` and `stride` cannot name as a whole."""
    channels, height, width = images.shape[1:]
    if channels != in_chans:
        raise LaminaError(
            f"the tokenizer reads {counted(in_chans, 'channel')}, the images have {channels}; train one on "
            "such images"
        )
    if height % stride or width % stride:
        raise LaminaError(
            f"the tokenizer reads sides that are multiples of {stride} px, not {height} x {width} px"
        )
