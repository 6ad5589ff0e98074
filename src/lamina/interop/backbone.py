"""The encoder as evaluations and analyses use it: images in, named features out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.fusion.build import Fusion
from lamina.fusion.last_layer import LastLayer
from lamina.recipes.recipe import Recipe

FeatureKind = Literal["last", "fused"]
Pool = Literal["cls", "mean"]


@dataclass(frozen=True)
class Origin:
    """Where a backbone came from: its name, the step of its run, and the recipe that builds it anew."""

    name: str
    step: int | None
    recipe: Recipe
    image_size: tuple[int, int] | None = None
    """Height and width in px that it was opened for; None: the recipe's."""
    resized: str = ""
    """What the other image size changed, in a sentence; "" where it is the recipe's."""


class Features(NamedTuple):
    """The tokens of some images after the final norm, several class tokens as their mean; registers are left
    out."""

    cls: Float[Tensor, "B D"] | None
    patches: Float[Tensor, "B N D"]

    def pooled(self, pool: Pool) -> Float[Tensor, "B D"]:
        """The class token (the mean of several), or the mean of the patch tokens."""
        if pool == "mean":
            return self.patches.mean(dim=1)
        if self.cls is None:
            raise LaminaError("this encoder has no class token; use pool 'mean'")
        return self.cls


class Backbone(nn.Module):
    """A frozen encoder, whole images, no mask.

    Features "last" are the final norm of the last block's output; "fused" are the method's fusion of its
    taps and then that norm, what a decoder was given in pre-training.

    Args:
        encoder: any `Encoder`; put in evaluation mode.
        fusion: the fusion it was trained with; `LastLayer` and None mean that there are no fused features.
        origin: kept for reports, and for the untrained baseline.
    """

    def __init__(self, encoder: Encoder, fusion: Fusion | None = None, origin: Origin | None = None) -> None:
        super().__init__()
        self.encoder = encoder
        self.fusion = None if isinstance(fusion, LastLayer) else fusion
        self.origin = origin
        self.requires_grad_(False)
        self.eval()

    @property
    def known_origin(self) -> Origin:
        """The origin; raises `LaminaError` for a backbone that was built from parts in Python."""
        if self.origin is None:
            raise LaminaError(
                "this backbone was built from parts, and nothing states how to build it again; load it by "
                "its name"
            )
        return self.origin

    @property
    def kinds(self) -> tuple[FeatureKind, ...]:
        """The features that this encoder has."""
        return ("last",) if self.fusion is None else ("last", "fused")

    @property
    def pools(self) -> tuple[Pool, ...]:
        """The ways to one vector per image that this encoder has."""
        return ("cls", "mean") if self.encoder.n_class else ("mean",)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that it was built for, in px."""
        return self.encoder.image_size

    def forward(self, images: Shaped[Tensor, "B C H W"], features: FeatureKind = "last") -> Features:
        """Features of images (uint8, or float on [0, 1]).

        Raises:
            LaminaError: for "fused" where there is no fusion, or images that do not fit.
        """
        return self.every(images, (features,))[features]

    def every(
        self, images: Shaped[Tensor, "B C H W"], kinds: Sequence[FeatureKind | int] | None = None
    ) -> dict[FeatureKind | int, Features]:
        """Several kinds of features (by default last and fused) of one pass through the encoder.

        A number is the output of that block without the final norm; -1 is the embedded input.
        """
        kinds = self.kinds if kinds is None else kinds
        fusions = {kind: self._fusion(kind) for kind in kinds if not isinstance(kind, int)}
        blocks = {kind for kind in kinds if isinstance(kind, int)}
        taps = sorted(blocks.union(*(fusion.layers for fusion in fusions.values())))
        outputs = dict(zip(taps, self.encoder(images, taps), strict=True))
        found: dict[FeatureKind | int, Features] = {}
        for kind in kinds:
            if isinstance(kind, int):
                found[kind] = self._divide(outputs[kind])
            else:
                own = [outputs[block] for block in fusions[kind].layers]
                found[kind] = self._divide(fusions[kind](own, self.encoder.norm))
        return found

    def _fusion(self, kind: FeatureKind) -> Fusion:
        """The fusion that computes features of this kind from block outputs."""
        if kind == "last":
            return LastLayer(self.encoder.depth)
        if kind != "fused":
            raise LaminaError(f"there are no features {kind!r}; use last or fused")
        if self.fusion is None:
            raise LaminaError("this encoder has no fusion, so no fused features; use features 'last'")
        return self.fusion

    def _divide(self, tokens: Float[Tensor, "B T D"]) -> Features:
        n = self.encoder.n_class
        cls = None if n == 0 else tokens[:, 0] if n == 1 else tokens[:, :n].mean(dim=1)
        return Features(cls, tokens[:, self.encoder.n_prefix :])
