"""The fifteen corruptions of ImageNet-C, generated on any image, and the scores over them."""

from __future__ import annotations

from lamina.evaluate.robustness.corruptions.corrupt import (
    KINDS,
    SEVERITIES,
    Corruption,
    available_kinds,
    check_corruption,
    corrupt,
)
from lamina.evaluate.robustness.corruptions.mce import (
    CorruptionScores,
    corruption_errors,
    mce,
    mean_error,
    relative_mce,
)

__all__ = [
    "KINDS",
    "SEVERITIES",
    "Corruption",
    "CorruptionScores",
    "available_kinds",
    "check_corruption",
    "corrupt",
    "corruption_errors",
    "mce",
    "mean_error",
    "relative_mce",
]
