"""How a classifier reads tokens, and how its images and labels are mixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.ranges import NOT_NEGATIVE, SHARE, SHARE_BELOW_1, check_ranges

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
    head_std: Annotated[float, NOT_NEGATIVE] = 0.02
    """Deviation of the head's weights at first (DeiT: 0.02; MAE: 2e-5 in fine-tuning, 0.01 in linear
    probing)."""
    frozen: bool = False
    """Train the head alone: the encoder, in evaluation mode, stays as it is."""
    ema: Annotated[float, SHARE_BELOW_1] = 0.0
    """Share of a slow copy of all weights that stays at each step, such as 0.9999; classifies in its place. 0
    for none."""
    mixup: Annotated[float, NOT_NEGATIVE] = 0.8
    """Alpha of mixup's Beta(alpha, alpha); 0 for none."""
    cutmix: Annotated[float, NOT_NEGATIVE] = 1.0
    """Alpha of CutMix's Beta(alpha, alpha); 0 for none."""
    mix_prob: Annotated[float, SHARE] = 1.0
    """Share of batches that are mixed at all."""
    switch_prob: Annotated[float, SHARE] = 0.5
    """Share of CutMix among mixed batches, where both are on."""
    smoothing: Annotated[float, SHARE_BELOW_1] = 0.1
    """Label smoothing: this much of each label is spread evenly over all classes."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        check_ranges(self)

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)
