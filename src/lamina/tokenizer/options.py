"""What a tokenizer of one's own is made of and how it is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, SEED, Range, check_ranges
from lamina.data.options import DataOptions, FileLimits
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions


@dataclass(frozen=True)
class TokenizerOptions:
    """A discrete VAE and its schedule."""

    image_size: Annotated[int, COUNT] = 64
    """Side of the training crops in px, a multiple of 8; images of any such size can be read afterwards."""
    in_chans: Annotated[int, COUNT] = 3
    """Channels of the images."""
    levels: Annotated[tuple[int, ...], Range(2)] = (8, 5, 5, 5)
    """Values of each latent number; their product is the vocabulary (1,000 ids)."""
    width: Annotated[int, COUNT] = 64
    """Channels at a quarter of the image's size; twice as many at an eighth."""
    depth: Annotated[int, COUNT] = 2
    """Residual blocks in the encoder, and in the decoder."""
    epochs: Annotated[float, POSITIVE] = 60.0
    """Passes over the images: what a thousand of them need to beat mean colours. Of many, fewer will do."""
    max_steps: Annotated[int | None, COUNT] = None
    """Length in steps, in place of epochs."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per step, over all ranks."""
    base_lr: Annotated[float, NOT_NEGATIVE] = 4e-3
    """Learning rate for 256 images; scaled by batch_size / 256."""
    clip_grad: Annotated[float | None, POSITIVE] = 1.0
    """Largest norm of the gradient; unset: no clipping."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the forward."""
    seed: Annotated[int, SEED] = 0
    """Of weights, order and crops."""
    checkpoint_every_steps: Annotated[int | None, COUNT] = None
    """Save a checkpoint every so many steps, beside one every 15 minutes and at the end."""
    log_every_steps: Annotated[int, COUNT] = 20
    """Steps between rows of metrics.jsonl."""
    nonfinite_limit: Annotated[int, NOT_NEGATIVE] = 20
    """Stop once more than this many steps, or more than half of all steps, had a loss or gradient that is not
    finite."""
    data: FileLimits = field(default_factory=FileLimits)
    """How much one file may take, and how many files may be unreadable."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)

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
