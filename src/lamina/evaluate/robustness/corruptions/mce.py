"""Scores over corruptions: mean error, mean corruption error (mCE) and relative mCE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamina.core.errors import LaminaError
from lamina.evaluate.robustness.corruptions.kinds import KINDS, SEVERITIES

Errors = Mapping[str, Sequence[float]]
"""For each kind the top-1 errors in [0, 1] at severity 1 to 5."""

ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's error on the published ImageNet-C, mean over the severities (github.com/hendrycks/robustness)."""
ALEXNET_CLEAN = 0.43478
"""The same network's error on ImageNet's validation set (torchvision's AlexNet_Weights.IMAGENET1K_V1)."""


def mean_error(errors: Errors) -> float:
    """The plain mean over kinds and severities.

    Raises:
        LaminaError: as all scores, for no kind, an unknown one, not five errors, or an error outside [0, 1].
    """
    return _mean([_mean(each) for each in _checked(errors).values()])


def corruption_errors(errors: Errors) -> dict[str, float]:
    """CE of each kind: the sum of its errors over the sum of AlexNet's (section 4 of arXiv 1903.12261)."""
    return {kind: _mean(each) / ALEXNET[kind] for kind, each in _checked(errors).items()}


def mce(errors: Errors) -> float:
    """The mean of `corruption_errors`: 1 is AlexNet. It has a meaning for ImageNet's 1000 classes alone."""
    return _mean(list(corruption_errors(errors).values()))


def relative_mce(errors: Errors, clean: float) -> float:
    """The same of what corruptions add to the error on clean images (section 4 of arXiv 1903.12261).

    CE is the sum of (error - clean) over the sum of (AlexNet's error - AlexNet's on clean images).
    """
    if not 0 <= clean <= 1:
        raise LaminaError(f"the error on clean images is a share, from 0 to 1, not {clean}")
    rows = _checked(errors)
    return _mean([(_mean(each) - clean) / (ALEXNET[kind] - ALEXNET_CLEAN) for kind, each in rows.items()])


@dataclass(frozen=True)
class CorruptionScores:
    """The scores over those kinds that were measured, under names that say what they are.

    Each mean is over the kinds measured, in equal parts; `remark` names those that were not, says whether
    images were generated, and stands beside every number of `named`.
    """

    errors: Errors
    """Top-1 errors by kind, five each."""
    generated: bool
    """Whether the images were corrupted here rather than read from the published ImageNet-C."""
    clean: float | None = None
    """Top-1 error on the same images uncorrupted."""
    imagenet: bool = False
    """Whether the classes are ImageNet's 1000; else AlexNet's errors are no measure and mCE is not given."""

    def __post_init__(self) -> None:
        """Refuse what cannot be errors."""
        _checked(self.errors)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Kinds that were not measured."""
        return tuple(kind for kind in KINDS if kind not in self.errors)

    @property
    def remark(self) -> str:
        """What belongs to every number: "generated, without frost", "published"."""
        origin = "generated" if self.generated else "published"
        return f"{origin}, without {', '.join(self.left_out)}" if self.left_out else origin

    def named(self) -> dict[str, float]:
        """The scores by name, each with the remark: "mean error (generated)" and, for ImageNet, mCE."""
        scores = {"mean error": mean_error(self.errors)}
        if self.imagenet:
            scores["mCE"] = mce(self.errors)
            if self.clean is not None:
                scores["relative mCE"] = relative_mce(self.errors, self.clean)
        return {f"{name} ({self.remark})": score for name, score in scores.items()}


def _checked(errors: Errors) -> Errors:
    if not errors:
        raise LaminaError("there are no errors under corruptions to take a mean of")
    for kind, each in errors.items():
        if kind not in KINDS:
            raise LaminaError(f"there is no corruption {kind!r}; take {', '.join(KINDS)}")
        if len(each) != len(SEVERITIES) or not all(0 <= error <= 1 for error in each):
            raise LaminaError(f"{kind} needs 5 errors, shares from 0 to 1, one for each severity, not {each}")
    return errors


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
