"""Supervised training of the same encoders, the fusion between the last block and the head: DeiT, Touvron et
al., arXiv 2012.12877."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lamina.batch import Batch
from lamina.encoder import Encoder
from lamina.errors import LaminaError
from lamina.frozen import Frozen
from lamina.fusion import Fusion


@dataclass(frozen=True)
class SupervisedOptions:
    """What the head reads, and who else teaches it."""

    pool: Literal["cls", "mean"] = "cls"
    """cls: the class token. mean: the mean of the patches (networks without a class token)."""
    classes: tuple[str, ...] = ()
    """Names of the classes; filled in from the data."""
    teacher: str | None = None
    """A supervised run, or timm/NAME of as many classes, whose decisions the distillation token learns
    (timm's deit_*_distilled networks have one); unset means none."""
    teacher_sha256: str | None = None
    """Which teacher it was; filled in when it is opened."""


class Supervised(nn.Module):
    """No mask, labels for targets: cross-entropy of a linear head on the normed (fused) last layer.

    With a teacher, DeiT's hard distillation (section 4, equation 3): the network's distillation token has a
    head of its own, whose labels are the teacher's decisions; the loss is the mean of the two, and a
    prediction the mean of both heads' logits.

    Args:
        encoder: any `Encoder`; it sees whole images.
        fusion: of one latent.
        n_classes: of the labels.
        pool: what the head reads.
        teacher: images on [0, 1] to logits of the same classes; frozen, and never in a checkpoint.

    Raises:
        LaminaError: for a pool or a teacher that the network has no token for.
    """

    def __init__(
        self,
        encoder: Encoder,
        fusion: Fusion,
        n_classes: int,
        pool: Literal["cls", "mean"] = "cls",
        teacher: nn.Module | None = None,
        distilled: bool | None = None,
    ) -> None:
        super().__init__()
        distilled = teacher is not None if distilled is None else distilled
        vit = encoder.vit
        if n_classes < 2:
            raise LaminaError(f"supervised training needs labels of two classes or more, not {n_classes}")
        if fusion.n_latents != 1:
            raise LaminaError("the head reads one latent; use --fusion mff or none")
        if pool == "cls" and vit.cls_token is None:
            raise LaminaError("this encoder has no class token; set supervised.pool to mean")
        if distilled and getattr(vit, "dist_token", None) is None:
            raise LaminaError(
                "a teacher needs a distillation token; take a network that has one, such as "
                "deit_small_distilled_patch16_224, or leave supervised.teacher out"
            )
        self.encoder, self.fusion, self.pool = encoder, fusion, pool
        if not fusion.uses_norm:
            encoder.norm.requires_grad_(False)
        self.head = _head(encoder.width, n_classes)
        self.head_dist = _head(encoder.width, n_classes) if distilled else None
        self.teacher = Frozen(teacher) if teacher is not None else None

    @property
    def n_classes(self) -> int:
        """K."""
        return self.head.out_features

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{"loss"}: mean over the batch of the cross-entropy with `batch.soft`, or with `batch.labels`."""
        own, distilled = self._heads(batch.images)
        loss = F.cross_entropy(own.float(), self._targets(batch))
        if distilled is None:
            return {"loss": loss}
        if self.teacher is None:
            raise LaminaError("the teacher of this run is not loaded here; its predictions work without")
        with torch.no_grad():
            decided = self.teacher.net(batch.images).argmax(-1)
        return {"loss": (loss + F.cross_entropy(distilled.float(), decided)) / 2}

    def logits(self, images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """What the network says of images (uint8, or float on [0, 1])."""
        own, distilled = self._heads(images)
        return own if distilled is None else (own + distilled) / 2

    def features(self, batch: Batch) -> list[Float[Tensor, "B T D"]]:
        """The un-normed block outputs that the fusion reads."""
        return self.encoder(batch.images, self.fusion.layers)  # type: ignore[no-any-return]

    def after_step(self, step: int) -> None:
        """Nothing moves but by the gradient."""

    def _heads(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        latent = self.fusion(self.encoder(images, self.fusion.layers), self.encoder.norm)
        assert isinstance(latent, Tensor)
        pooled = latent[:, 0] if self.pool == "cls" else latent[:, self.encoder.n_prefix :].mean(1)
        return self.head(pooled), None if self.head_dist is None else self.head_dist(latent[:, 1])

    def _targets(self, batch: Batch) -> Tensor:
        if batch.soft is not None:
            return batch.soft
        if batch.labels is None:
            raise LaminaError(
                "supervised training needs labels; give root/CLASS/... or another labelled source"
            )
        return batch.labels


def _head(width: int, n_classes: int) -> nn.Linear:
    """As timm's DeiT starts it: truncated normal of 0.02, no bias."""
    head = nn.Linear(width, n_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
