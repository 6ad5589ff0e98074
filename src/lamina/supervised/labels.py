"""Labels that fit a head, checked where nothing waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from lamina.core.errors import LaminaError

MISSING = "supervised training needs labels; give data whose classes are known, such as one folder for each"


def check_labels(labels: Sequence[int] | None, n_classes: int) -> None:
    """Raise where a source's labels (`source.labels`) do not fit `n_classes`: once, before a run."""
    if labels is None or not len(labels):
        raise LaminaError(MISSING)
    check_range(torch.as_tensor(labels), n_classes)


def check_range(labels: Int64[Tensor, "B"], n_classes: int) -> None:
    """Raise `LaminaError` for a label that is no class; waits for the labels' device."""
    odd = labels[(labels < 0) | (labels >= n_classes)]
    if len(odd):
        label = int(odd[0])
        why = "an image without a label" if label < 0 else f"a label {label}"
        raise LaminaError(f"{why} among classes 0 to {n_classes - 1}; correct the labels, or set n_classes")


def valid(labels: Int64[Tensor, "B"], n_classes: int) -> Tensor:
    """0-d bool on the labels' device: whether all of them are classes."""
    return ((labels >= 0) & (labels < n_classes)).all()
