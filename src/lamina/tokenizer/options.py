"""What a tokenizer of one's own is made of and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lamina.data import DataOptions
from lamina.train import OptimOptions, TrainOptions


@dataclass(frozen=True)
class TokenizerOptions:
    """A discrete VAE and its schedule."""

    image_size: int = 64
    """Side of the training crops in px, a multiple of 8; images of any such size can be read afterwards."""
    in_chans: int = 3
    """Channels of the images."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Values of each latent number; their product is the vocabulary (1,000 ids)."""
    width: int = 64
    """Channels at a quarter of the image's size; twice as many at an eighth."""
    depth: int = 2
    """Residual blocks in the encoder, and in the decoder."""
    epochs: float = 60.0
    """Passes over the images: what a thousand of them need to beat mean colours. Of many, fewer will do."""
    max_steps: int | None = None
    """Length in steps, in place of epochs."""
    batch_size: int = 64
    """Images per step, over all ranks."""
    base_lr: float = 4e-3
    """Learning rate for 256 images; scaled by batch_size / 256."""
    clip_grad: float | None = 1.0
    """Largest norm of the gradient; unset: no clipping."""
    workers: int = 2
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward."""
    seed: int = 0
    """Of weights, order and crops."""
    checkpoint_every_steps: int | None = None
    """Save a checkpoint every so many steps, beside one every 15 minutes and at the end."""
    log_every_steps: int = 20
    """Steps between rows of metrics.jsonl."""

    def data(self) -> DataOptions:
        """How the images are read: random crops of at least half of the area, flipped or not."""
        return DataOptions(crop_scale=(0.5, 1.0), workers=self.workers)

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
        )
