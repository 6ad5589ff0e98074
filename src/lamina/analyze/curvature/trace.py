"""The trace of a symmetric operator by random signs (Hutchinson 1989)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from lamina.analyze.curvature.lanczos import Product, Tick
from lamina.core.errors import LaminaError


@dataclass(frozen=True)
class Trace:
    """An estimate of the sum of all eigenvalues."""

    value: float
    standard_error: float | None
    """Standard deviation of the estimate, by the spread of its probes; None of a single one."""
    probes: int


def hutchinson(
    product: Product,
    signs: Callable[[int], Float[Tensor, "n"]],
    probes: int,
    tick: Tick = lambda residual: None,
) -> Trace:
    """The mean of z'Az over vectors z of random signs: unbiased, its variance 2 (|A|_F^2 - |diag A|^2) /
    probes.

    Args:
        signs: i -> the i-th vector of random signs.
        tick: called after each product with the standard error over the estimate (NaN at first).
    """
    if probes < 1:
        raise LaminaError(f"a trace by {probes} probes; give 1 or more")
    terms: list[float] = []
    for i in range(probes):
        z = signs(i)
        terms.append(float((z * product(z)).double().sum()))
        error = float(np.std(terms, ddof=1)) / len(terms) ** 0.5 if i else None
        mean = float(np.mean(terms))
        tick(error / max(abs(mean), np.finfo(float).tiny) if error is not None else float("nan"))
    return Trace(mean, error, probes)
