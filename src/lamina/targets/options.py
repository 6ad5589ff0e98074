"""What is predicted at the hidden patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.ranges import COUNT, SHARE_ABOVE_0, check_ranges

TargetKind = Literal["pixels", "hog", "tokens", "teacher"]
_PIXELS = read_if("kind", "pixels")
_HOG = read_if("kind", "hog")
_TEACHER = read_if("kind", "teacher")
_GUIDED = read_if("kind", "tokens", "teacher")


@dataclass(frozen=True)
class TargetOptions:
    """What is predicted at the hidden patches."""

    kind: TargetKind = "pixels"
    """pixels: MAE, SimMIM, PixMIM. hog: histograms of oriented gradients (MaskFeat). tokens: ids of a
    discrete tokenizer (BEiT). teacher: features of a frozen network (EVA, MILAN)."""
    norm_pix: Annotated[bool, _PIXELS] = True
    """Normalise each patch by its own mean and standard deviation (MAE), for pixels."""
    low_pass: Annotated[float | None, SHARE_ABOVE_0, _PIXELS] = None
    """Keep only frequencies up to this fraction of Nyquist (PixMIM: 40/112 = 0.357); unset keeps all."""
    hog_bins: Annotated[int, COUNT, _HOG] = 9
    """Orientations in half a turn, for hog."""
    hog_cell_px: Annotated[int, COUNT, _HOG] = 8
    """Side of a cell, which divides the patch, for hog."""
    hog_gaussian_px: Annotated[int | None, COUNT, _HOG] = 16
    """Side of the Gaussian window that weighs the gradients, for hog; unset weighs all alike."""
    tokenizer: Annotated[str | None, read_if("kind", "tokens")] = None
    """What `lamina tokenizer train` made, or DALL-E's encoder file, for tokens."""
    teacher: Annotated[str | None, _TEACHER] = None
    """A run, a step of it, a weights file or a timm name, for teacher."""
    teacher_encoder: Annotated[str | None, _TEACHER] = None
    """The timm name of the teacher's network, where its weights file does not say."""
    projected: Annotated[bool, _TEACHER] = False
    """Predict what the teacher's own head makes of each patch (CLIP's projection, 512 wide for ViT-B/16)."""
    teacher_precision: Annotated[Literal["fp32", "bf16"] | None, _TEACHER] = None
    """Precision of the teacher; unset means that of the run."""
    width: Annotated[int | None, COUNT, _GUIDED] = None
    """K, numbers (or ids to choose from) in a patch; filled in when the teacher or tokenizer is opened."""
    guide_sha256: Annotated[str | None, _GUIDED] = None
    """Which teacher or tokenizer it was: a hash of its weights; filled in when it is opened."""

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        check_ranges(self)

    @property
    def guide(self) -> str | None:
        """The teacher or tokenizer that this kind of target asks, by what it is called."""
        return {"tokens": self.tokenizer, "teacher": self.teacher}.get(self.kind)
