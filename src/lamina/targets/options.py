"""What is predicted at the hidden patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lamina.core.choices import read_if
from lamina.core.config import Formerly
from lamina.core.ranges import COUNT, SHARE_ABOVE_0, RangeChecked

TargetKind = Literal["pixels", "hog", "tokens", "teacher"]
_PIXELS = read_if("kind", "pixels")
_HOG = read_if("kind", "hog")
_TEACHER = read_if("kind", "teacher")
_OF_NETWORK = read_if("kind", "tokens", "teacher")


@dataclass(frozen=True)
class TargetOptions(RangeChecked):
    """What is predicted at the hidden patches."""

    kind: TargetKind = "pixels"
    """What is predicted at the hidden patches. pixels: their colours (MAE, SimMIM, PixMIM). hog: histograms
    of oriented gradients (MaskFeat). tokens: ids of a discrete tokenizer (BEiT). teacher: features of a
    frozen network (EVA, MILAN)."""
    norm_pix: Annotated[bool, _PIXELS] = True
    """Normalise the pixels of each patch by their own mean and standard deviation before they are predicted
    (MAE)."""
    low_pass: Annotated[float | None, SHARE_ABOVE_0, _PIXELS] = None
    """Keep only spatial frequencies up to this share of the Nyquist frequency in the predicted pixels
    (PixMIM: 40/112 = 0.357). Unset: all frequencies are kept."""
    hog_bins: Annotated[int, COUNT, _HOG] = 9
    """Number of orientations, between 0 and 180 degrees, that gradients are counted in, for target.kind
    hog."""
    hog_cell_px: Annotated[int, COUNT, _HOG] = 8
    """Side of a histogram's cell in pixels, for target.kind hog; it has to divide the patch size."""
    hog_gaussian_px: Annotated[int | None, COUNT, _HOG] = 16
    """Side in pixels of the Gaussian window that weights the gradients, for target.kind hog. Unset: all
    gradients have the same weight."""
    tokenizer: Annotated[str | None, read_if("kind", "tokens")] = None
    """Folder that `lamina tokenizer train` wrote, or DALL-E's encoder file; needed for target.kind tokens."""
    teacher: Annotated[str | None, _TEACHER] = None
    """Network whose features are predicted: a run, a step of a run, a weights file or a timm name; needed for
    target.kind teacher."""
    teacher_encoder: Annotated[str | None, _TEACHER] = None
    """timm name of the teacher's network; needed where its weights file does not say it."""
    projected: Annotated[bool, _TEACHER] = False
    """Predict what the teacher's own head makes of each patch (for CLIP its projection, 512 wide for
    ViT-B/16), instead of the features before the head."""
    teacher_precision: Annotated[Literal["fp32", "bf16"] | None, _TEACHER] = None
    """Arithmetic of the teacher. Unset: that of the run."""
    width: Annotated[int | None, COUNT, _OF_NETWORK] = None
    """Number of values, or of ids to choose from, for each patch. It is filled in when the teacher or
    tokenizer is opened."""
    target_sha256: Annotated[str | None, _OF_NETWORK, Formerly("guide_sha256")] = None
    """SHA-256 of the weights of the teacher or tokenizer, so that a resumed run uses the same. It is filled
    in when the network is opened."""

    @property
    def target_model(self) -> str | None:
        """The teacher or tokenizer that computes the target, as it was named; None for other targets."""
        return {"tokens": self.tokenizer, "teacher": self.teacher}.get(self.kind)
