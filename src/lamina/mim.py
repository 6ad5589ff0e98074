"""Masked image modelling: the forward that every method shares."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from lamina.core.batch import Batch, images_of
from lamina.core.errors import LaminaError
from lamina.core.interfaces import Target
from lamina.core.patches import take
from lamina.core.rng import fresh_keys
from lamina.decoder.build import Decoder
from lamina.encoder.encoder import Encoder
from lamina.fusion.build import Fusion, check_fusion
from lamina.losses import Loss
from lamina.masking.attention_guided import AttentionGuidedMasking
from lamina.masking.build import Masking


class Prediction(NamedTuple):
    """What the decoder says of which patches."""

    values: Float[Tensor, "B m K"]
    where: Int64[Tensor, "B m"]
    mask: Bool[Tensor, "B N"]


class MIM(nn.Module):
    """method = masking x encoder x fusion x decoder x target x loss.

    Raises:
        LaminaError: for parts that do not fit each other.
    """

    def __init__(
        self, masking: Masking, encoder: Encoder, fusion: Fusion, decoder: Decoder, target: Target, loss: Loss
    ) -> None:
        super().__init__()
        self.masking = masking
        self.encoder = encoder
        self.fusion = fusion
        self.decoder = decoder
        self.target = target
        self.loss = loss
        self._check()
        if not fusion.uses_norm:  # it would wait for a gradient that never comes
            encoder.norm.requires_grad_(False)

    def forward(self, batch: Batch | Shaped[Tensor, "..."]) -> dict[str, Tensor]:
        """The loss over the predicted patches; a plain tensor of images does: (B, C, H, W), uint8, or float
        on [0, 1]."""
        self.encoder.grid_of(images_of(batch))
        batch = batch if isinstance(batch, Batch) else Batch(batch)
        target, scores = self.target(batch.images)  # (B, N, K), (B, N) or None
        values, where, _ = self.predict(batch, scores)
        per_patch = self.loss(values, take(target, where))  # (B, m)
        return {"loss": per_patch.mean()}

    def predict(self, batch: Batch, scores: Float[Tensor, "B N"] | None = None) -> Prediction:
        """Hide, encode, fuse, decode."""
        mask = self.mask(batch, scores)
        features = self.encode(batch.images, mask)  # [(B, P + n, D)], un-normed
        latents = self.fusion(features, self.encoder.norm)
        values, where = self.decoder(latents, mask, batch.keys)  # (B, m, K), (B, m)
        return Prediction(values, where, mask)

    def features(self, batch: Batch) -> list[Float[Tensor, "B T D"]]:
        """The un-normed block outputs that the fusion reads, under the batch's own mask."""
        return self.encode(batch.images, self.mask(batch))

    def mask(self, batch: Batch, scores: Float[Tensor, "B N"] | None = None) -> Bool[Tensor, "B N"]:
        """The batch's own mask, or one that is drawn by its keys; True = hidden."""
        if batch.mask is not None:
            self._check_count(batch.mask)
            return batch.mask
        if scores is None and isinstance(self.masking, AttentionGuidedMasking):
            scores = self.target(batch.images)[1]
        keys = batch.keys if batch.keys is not None else fresh_keys(len(batch), batch.images.device)
        return self.masking(keys, self.encoder.grid_of(batch.images), scores)

    def encode(
        self, images: Shaped[Tensor, "B C H W"], mask: Bool[Tensor, "B N"]
    ) -> list[Float[Tensor, "B T D"]]:
        """The un-normed block outputs that the fusion reads."""
        grid = self.encoder.grid_of(images)
        if grid != self.encoder.grid:  # a network of dynamic size takes it, the decoder's positions do not
            height, width = self.encoder.image_size
            raise LaminaError(f"the decoder was built for {height} x {width} px; give images of that size")
        n_visible = self.masking.n_visible(grid)
        return self.encoder(images, self.fusion.layers, mask, n_visible)  # type: ignore[no-any-return]

    def after_step(self, step: int) -> None:
        """Called by the loop after each optimiser step; targets that move do so here."""
        self.target.after_step(step)

    def _check_count(self, mask: Tensor) -> None:
        """Each row of a given mask hides as many as the masking would; checked where nothing waits for it."""
        n_visible = self.masking.n_visible(self.encoder.grid)
        if torch.compiler.is_compiling():
            return  # to look at a value would cut the compiled forward in two
        if mask.device.type == "cpu" and bool(((~mask).sum(1) != n_visible).any()):
            raise LaminaError(
                f"each row of a mask must leave {n_visible} patches visible; set mask_ratio to match"
            )

    def _check(self) -> None:
        sees = {"drop": "visible", "replace": "all"}[self.encoder.hide]
        name = type(self.decoder).__name__
        if self.decoder.takes != sees:
            raise LaminaError(
                f"{name} reads {self.decoder.takes} patches, the encoder gives {sees}; use LinearDecoder "
                "with hide='replace', another decoder with hide='drop'"
            )
        if self.decoder.n_latents != self.fusion.n_latents:
            raise LaminaError(
                f"{name} takes {self.decoder.n_latents} latent(s), {type(self.fusion).__name__} gives "
                f"{self.fusion.n_latents}; only CrossDecoder(latents='per_block') reads a mix for each block"
            )
        check_fusion(self.fusion, self.encoder.width, self.encoder.depth)


def mim_of(task: nn.Module) -> MIM | None:
    """The masked image model in a task: itself, or the one that it is built around (`task.mim`)."""
    inner = getattr(task, "mim", task)
    return inner if isinstance(inner, MIM) else None
