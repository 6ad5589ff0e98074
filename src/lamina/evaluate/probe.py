"""What a probe of frozen features answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from lamina.evaluate.results import Setting


@dataclass(frozen=True)
class Verdict:
    """The settings chosen on the training set, the accuracy there, the predicted test classes, and remarks.

    A probe is given the features of the test set but never its labels: the caller keeps them and
    counts, so no choice can depend on them.
    """

    settings: dict[str, Setting]
    validation_top1: float
    predictions: Int64[Tensor, "m"]
    notes: tuple[str, ...] = ()


def grouped(remarks: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """A sentence for each remark, after the names of all that it was made on: (name, remark) in any order."""
    names: dict[str, list[str]] = {}
    for name, remark in remarks:
        names.setdefault(remark, []).append(name)
    return tuple(f"{'; '.join(found)}: {remark}" for remark, found in names.items())
