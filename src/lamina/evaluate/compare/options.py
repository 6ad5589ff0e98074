"""Which protocols a comparison runs, how often, and what they may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, check_ranges
from lamina.encoder.options import network_options
from lamina.evaluate.catalog import PROTOCOL_NAMES
from lamina.evaluate.protocol import Protocol, ProtocolOptions
from lamina.features.options import VectorPool, Wanted

_NAMES = tyro.conf.arg(metavar=f"{{{','.join(PROTOCOL_NAMES)}}} [...]")


@dataclass(frozen=True)
class CompareOptions:
    """Which protocols, how often, and what they may take."""

    protocols: Annotated[tuple[str, ...], _NAMES] = ("knn", "linear", "finetune")
    """Protocols to run, in the order of the table's rows; robustness is run last, since it tests the
    classifier that finetune trains."""
    seeds: Annotated[int, COUNT] = 3
    """Seeds of each protocol, for a model that is one run; of a model of several runs each is a seed."""
    epochs: Annotated[float | None, POSITIVE] = None
    """Epochs of fine-tuning, linear-mae and attentive, in place of their recipes'; warm-up keeps its
    share."""
    few_per_class: Annotated[tuple[int, ...], COUNT] = (1, 5, 10)
    """Images of each class for fewshot."""
    corrupted_images: Annotated[int | None, COUNT] = 1000
    """Test images for robustness; unset means all."""
    features: tuple[Wanted, ...] = ("last",)
    """What knn and linear read, the same of all models: last (the last block) is there in each. Each of
    several has rows of its own: fused (what the decoder was given) of models with a fusion, layers (each
    block)."""
    pools: tuple[VectorPool, ...] = ("mean",)
    """How knn and linear pool it, the same for all models: mean (of the patches) is there in each. Each of
    several has a row of its own: cls (the class token), cls+mean (both side by side)."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per forward of frozen encoders."""
    network: str | None = None
    """timm name of the network, for weights files that do not say."""
    heads: Annotated[int | None, COUNT, tyro.conf.arg(name="encoder.heads")] = None
    """Attention heads of the network, for weights files of an unusual width, which do not say."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Processes that read images."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)
        if unknown := set(self.protocols) - set(PROTOCOL_NAMES):
            raise LaminaError(f"there is no protocol {min(unknown)!r}; take {', '.join(PROTOCOL_NAMES)}")
        if not self.protocols:
            raise LaminaError("name at least one protocol")

    def of(self, protocol: Protocol, recipe: Mapping[str, Any]) -> ProtocolOptions:
        """What is asked of one protocol."""
        return ProtocolOptions(
            protocol.name,
            recipe,
            network_options(self.network, self.heads),
            self.epochs,
            self.few_per_class,
            self.corrupted_images,
            self.features,
            self.pools,
        )
