"""Options by which protocols that train from a model change its network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lamina.core.choices import read_if
from lamina.core.ranges import COUNT, SHARE_BELOW_1, RangeChecked


@dataclass(frozen=True)
class EncoderChanges(RangeChecked):
    """Changes of a model's network that every protocol that trains can make."""

    drop_path: Annotated[float, SHARE_BELOW_1, read_if("frozen", False)] = 0.0
    """Largest rate of stochastic depth, that of the last block. Raise it for large networks and few
    images."""
    activation_checkpointing: Annotated[bool, read_if("frozen", False)] = False
    """Recompute the blocks in the backward pass: less memory, but more time for each step."""


@dataclass(frozen=True)
class FinetuneEncoder(EncoderChanges):
    """Changes of the model's network for fine-tuning."""

    image_size: Annotated[tuple[int, ...] | None, COUNT] = None
    """Side, or height and width, of the images in pixels; positions are resampled. Unset: the model's."""


@dataclass(frozen=True)
class DenseEncoder(EncoderChanges):
    """Changes of the model's network for a dense protocol."""

    frozen: bool = False
    """Keep the encoder as it is: in evaluation mode, without gradients, and out of the checkpoints."""
