"""What a tokenizer of one's own is made of and how it is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Range, RangeChecked
from lamina.data.options import DataOptions, FileLimits
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions


@dataclass(frozen=True)
class TokenizerOptions(RangeChecked):
    """A discrete VAE and its schedule."""

    image_size: Annotated[int, COUNT] = 64
    """Side of the training crops in pixels, a multiple of 8. The trained tokenizer reads images of any such
    size."""
    in_chans: Annotated[int, COUNT] = 3
    """Number of channels of the images, such as 1 for grey and 3 for colour images."""
    levels: Annotated[tuple[int, ...], Range(2)] = (8, 5, 5, 5)
    """Number of values of each latent number. Their product is the size of the vocabulary: 8 x 5 x 5 x 5 =
    1,000 ids."""
    width: Annotated[int, COUNT] = 64
    """Number of channels at a quarter of the image's resolution; there are twice as many at an eighth."""
    depth: Annotated[int, COUNT] = 2
    """Number of residual blocks in the encoder, and as many in the decoder."""
    epochs: Annotated[float, POSITIVE] = 60.0
    """Length of the training in passes over the images. 60 suits about 1,000 images; use fewer for large
    data."""
    max_steps: Annotated[int | None, COUNT] = None
    """Length of the training in optimiser steps, in place of epochs."""
    batch_size: Annotated[int, COUNT] = 64
    """Number of images in each step, over all processes together."""
    base_lr: Annotated[float, NOT_NEGATIVE] = 4e-3
    """Learning rate for 256 images in a step; the rate that is used is base_lr x batch_size / 256."""
    clip_grad: Annotated[float | None, POSITIVE] = 1.0
    """Largest norm of the gradient; larger gradients are scaled down to it. Unset: no clipping."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Number of processes that read images; 0: the training process reads them. Results do not depend on
    it."""
    device: str = "auto"
    """Where to compute: auto (a GPU where there is one), cpu, cuda, cuda:1 or mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward pass: fp32, or mixed precision with bf16 or with scaled fp16."""
    seed: Annotated[int, SEED] = 0
    """Random seed for weights, data order and crops."""
    checkpoint_every_steps: Annotated[int | None, COUNT] = None
    """Also save a checkpoint every N steps; one is always saved every 15 minutes and at the end."""
    log_every_steps: Annotated[int, COUNT] = 20
    """Number of steps that one row of metrics.jsonl averages over."""
    nonfinite_limit: Annotated[int, NOT_NEGATIVE] = 20
    """Stop once more than this many steps, or more than half of all steps, had a loss or gradient that is not
    finite."""
    data: FileLimits = field(default_factory=FileLimits)
    """Limits on what reading one file may take, and on how many files may be unreadable."""

    def reading(self) -> DataOptions:
        """How the images are read: random crops of at least half of the area, flipped or not."""
        return DataOptions(crop_scale=(0.5, 1.0), workers=self.workers, **asdict(self.data))

    def optim(self) -> OptimOptions:
        """AdamW without weight decay, a short warm-up, a cosine."""
        return OptimOptions(
            base_lr=self.base_lr,
            betas=(0.9, 0.99),
            weight_decay=0.0,
            warmup_epochs=0.5,
            clip_grad=self.clip_grad,
        )

    def train(self) -> TrainOptions:
        """The schedule for the loop."""
        return TrainOptions(
            epochs=self.epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
            seed=self.seed,
            checkpoint_every_steps=self.checkpoint_every_steps,
            log_every_steps=self.log_every_steps,
            nonfinite_limit=self.nonfinite_limit,
        )
