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
    """What the head reads. cls: the class token (the mean of them where there are several). mean: the mean of
    the patch tokens. attentive: the output of learned queries that attend to all patch tokens. Unset: cls
    where the network has a class token."""
    neck: Neck = "none"
    """Normalisation before the head. none: only the encoder's final norm, of each token. layer: a layer norm
    of the pooled vector, in place of the final norm (MAE's fine-tuning). batch: a batch norm without learned
    scale and shift (MAE's linear probe)."""
    head_std: Annotated[float, NOT_NEGATIVE] = 0.02
    """Standard deviation of the head's initial weights (DeiT: 0.02; MAE: 2e-5 in fine-tuning, 0.01 in linear
    probing)."""
    frozen: bool = False
    """Train the head alone; the encoder stays as it is, in evaluation mode."""
    ema: Annotated[float, SHARE_BELOW_1] = 0.0
    """Decay of an exponential moving average of all weights, such as 0.9999; the averaged weights classify in
    place of the last ones. 0: no average."""
    mixup: Annotated[float, NOT_NEGATIVE] = 0.8
    """Alpha of Mixup, which mixes two images with a share drawn from Beta(alpha, alpha). 0: no Mixup."""
    cutmix: Annotated[float, NOT_NEGATIVE] = 1.0
    """Alpha of CutMix, which pastes a part of another image, of an area drawn from Beta(alpha, alpha). 0: no
    CutMix."""
    mix_prob: Annotated[float, SHARE] = 1.0
    """Share of the batches whose images are mixed by Mixup or CutMix."""
    switch_prob: Annotated[float, SHARE] = 0.5
    """Share of CutMix among the mixed batches, where both Mixup and CutMix are on."""
    smoothing: Annotated[float, SHARE_BELOW_1] = 0.1
    """Label smoothing: the share of each label that is spread evenly over all classes. 0: off."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        check_ranges(self)

    @property
    def mixes(self) -> bool:
        """Whether training images are mixed."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)
