"""Options of a comparison: its protocols, seeds and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import tyro

from lamina.core.errors import LaminaError
from lamina.core.ranges import COUNT, NOT_NEGATIVE, POSITIVE, check_ranges
from lamina.encoder.options import network_options
from lamina.evaluate.catalog import PROTOCOL_NAMES, PROTOCOLS
from lamina.evaluate.protocol import Protocol, ProtocolOptions
from lamina.features.options import VectorPool, Wanted

_NAMES = tyro.conf.arg(metavar=f"{{{','.join(PROTOCOL_NAMES)}}} [...]")


@dataclass(frozen=True)
class CompareOptions:
    """Protocols of a comparison, seeds, and the size of its evaluations."""

    protocols: Annotated[tuple[str, ...], _NAMES] = ("knn", "linear", "finetune")
    """Protocols to run, in the order of the table's rows; robustness is run last, since it tests the
    classifier that finetune trains."""
    seeds: Annotated[int, COUNT] = 3
    """Number of seeds of each protocol. A model that is given as several runs (A=R1,R2,R3) has one seed per
    run instead."""
    epochs: Annotated[float | None, POSITIVE] = None
    """Epochs of finetune, linear-mae and attentive, in place of those of their recipes; warm-up keeps its
    share of them."""
    few_per_class: Annotated[tuple[int, ...], COUNT] = (1, 5, 10)
    """Label budgets of fewshot: numbers of images of each class."""
    corrupted_images: Annotated[int | None, COUNT] = 1000
    """Number of test images for robustness. None: all."""
    features: tuple[Wanted, ...] = ("last",)
    """Features that knn and linear read, each in rows of its own. last: the output of the last block, which
    all models have. fused: the fused features that the decoder reads, of models with a fusion. layers: the
    output of each block."""
    pools: tuple[VectorPool, ...] = ("mean",)
    """Vectors of an image for knn and linear, each in a row of its own: the mean of the patch tokens (mean),
    which all models have, the class token (cls), or both concatenated (cls+mean)."""
    batch_size: Annotated[int, COUNT] = 64
    """Images per forward pass of frozen encoders. Lower it where the device runs out of memory."""
    network: str | None = None
    """timm name of the network, for weights files that do not name it."""
    heads: Annotated[int | None, COUNT, tyro.conf.arg(name="encoder.heads")] = None
    """Attention heads of the network, for weights files of an unusual width that do not name them."""
    workers: Annotated[int, NOT_NEGATIVE] = 2
    """Number of processes that read images; 0 reads them in the main process."""
    device: str = "auto"
    """Device to compute on: auto, cpu, cuda, cuda:1, mps, ...; auto takes a GPU where there is one."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)
        if unknown := set(self.protocols) - set(PROTOCOL_NAMES):
            raise LaminaError(f"there is no protocol {min(unknown)!r}; take {', '.join(PROTOCOL_NAMES)}")
        if not self.protocols:
            raise LaminaError("name at least one protocol")

    def without_effect(self, protocols: Sequence[Protocol]) -> tuple[str, ...]:
        """Names of the given options that are for some protocols, but for none of these."""
        known = {name for protocol in PROTOCOLS for name in protocol.options}
        read = {name for protocol in protocols for name in protocol.options}
        given = [option.name for option in fields(self) if getattr(self, option.name) != option.default]
        return tuple(name for name in given if name in known - read)

    def of(self, protocol: Protocol, recipe: Mapping[str, Any]) -> ProtocolOptions:
        """The options for one protocol."""
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
