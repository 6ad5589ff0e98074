"""Results of a classifier by class, as the report shows them: accuracy of each class, and confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.evaluate.confusion import ClassAccuracy, Confusion

MOST_IN_A_MATRIX = 20
"""Classes of which the whole matrix is shown; of more, the pairs that are mixed up most often."""
MOST_ROWS = 50
MOST_PAIRS = 20


@dataclass(frozen=True)
class ClassTables:
    """Classes with the lowest recall first where not all are shown; `left_out` says how many are not."""

    balanced: float
    majority: float
    each: Sequence[ClassAccuracy]
    left_out: int
    names: Sequence[str]
    """Of the matrix' rows (true) and columns (given); empty where there are too many."""
    matrix: Sequence[Sequence[int]]
    pairs: Sequence[tuple[str, str, int]]
    """True class, given class and images of the most frequent mistakes, where there is no matrix."""


def class_tables(confusion: Confusion) -> ClassTables:
    """The tables of one confusion matrix."""
    each, n = list(confusion.per_class), len(confusion.classes)
    if n > MOST_ROWS:
        each = sorted((found for found in each if found.recall is not None), key=lambda c: c.recall or 0.0)
    small = n <= MOST_IN_A_MATRIX
    matrix = [[0] * n for _ in range(n)] if small else []
    for true, given, images in confusion.counts if small else ():
        matrix[true][given] = images
    wrong = sorted((count for count in confusion.counts if count[0] != count[1]), key=lambda count: -count[2])
    return ClassTables(
        balanced=confusion.balanced,
        majority=confusion.majority,
        each=each[:MOST_ROWS],
        left_out=max(0, n - MOST_ROWS),
        names=confusion.classes if small else (),
        matrix=matrix,
        pairs=[]
        if small
        else [(confusion.classes[t], confusion.classes[g], n) for t, g, n in wrong[:MOST_PAIRS]],
    )
