"""The result of a probe on frozen features, and notes on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from lamina.features.table import Setting

MOST_NAMED = 4
"""Kinds of features that a remark names; of more it gives the number."""


@dataclass(frozen=True)
class ProbeResult:
    """The settings chosen on the training set, the accuracy there, the predicted test classes, and remarks.

    Where images have several labels, the accuracy is the mean average precision, and `predictions` are scores
    (m, K).

    A probe is given the features of the test set but never its labels: the caller keeps them and
    counts, so no choice can depend on them.
    """

    settings: dict[str, Setting]
    validation_top1: float
    predictions: Shaped[Tensor, "m *K"]
    notes: tuple[str, ...] = ()


def edge_note(name: str, chosen: float, values: Sequence[float]) -> tuple[str, ...]:
    """A remark where the best of several values of a setting, in ascending order, is the first or the last:
    others may be better yet."""
    if len(values) == 1 or chosen not in (values[0], values[-1]):
        return ()
    edge, beyond = ("smallest", "smaller") if chosen == values[0] else ("largest", "larger")
    return (f"the chosen {name}, {chosen:g}, is the {edge} of the sweep; a {beyond} one may be better",)


def group_notes(remarks: Iterable[tuple[str, str]], n: int) -> tuple[str, ...]:
    """A sentence for each remark, after the names of what it was made on; where these are more than
    `MOST_NAMED`, after their number out of `n` kinds of features. `remarks` are (name, remark)."""
    names: dict[str, list[str]] = {}
    for name, remark in remarks:
        names.setdefault(remark, []).append(name)
    return tuple(f"{_named(found, n)}: {remark}" for remark, found in names.items())


def _named(names: Sequence[str], n: int) -> str:
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{'all' if len(names) == n else len(names)} of {n} kinds of features"
