"""How a classifier reads tokens, and how its images and labels are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lamina.errors import LaminaError

Pool = Literal["cls", "mean", "attentive"]
Neck = Literal["none", "layer", "batch"]


@dataclass(frozen=True)
class SupervisedOptions:
    """Pooling, and mixing as DeiT has it (arXiv 2012.12877, table 9)."""

    pool: Pool | None = None
    """cls: the head reads the class token (the mean of several). mean: the mean of the patches. attentive:
    one learned query attends to all patches. Unset means cls where there is one."""
    neck: Neck = "none"
    """Before the head: none (tokens went through the encoder's final norm). layer: a norm of the pooled
    vector in place of the final norm (MAE's fine-tuning). batch: batch norm without affine (MAE's linear
    probe)."""
    head_std: float = 0.02
    """Deviation of the head's weights at first (DeiT: 0.02; MAE: 2e-5 in fine-tuning, 0.01 in linear
    probing)."""
    frozen: bool = False
    """Train the head alone: the encoder, in evaluation mode, stays as it is."""
    ema: float = 0.0
    """Share of a slow copy of all weights that stays at each step, such as 0.9999; classifies in its place. 0
    for none."""
    mixup: float = 0.8
    """Alpha of mixup's Beta(alpha, alpha); 0 for none."""
    cutmix: float = 1.0
    """Alpha of CutMix's Beta(alpha, alpha); 0 for none."""
    mix_prob: float = 1.0
    """Share of batches that are mixed at all."""
    switch_prob: float = 0.5
    """Share of CutMix among mixed batches, where both are on."""
    smoothing: float = 0.1
    """Label smoothing: this much of each label is spread evenly over all classes."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise LaminaError(f"{name} is {getattr(self, name)}; give an alpha above 0, or 0 for none")
        for name in ("mix_prob", "switch_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise LaminaError(f"{name} is {getattr(self, name)}; it is a probability, from 0 to 1")
        for name in ("smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise LaminaError(f"{name} is {getattr(self, name)}; give from 0 to below 1")
        if self.head_std < 0:
            raise LaminaError(f"head_std is {self.head_std}; give 0 or more")

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)
