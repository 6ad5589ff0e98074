"""The Hessian of one mini-batch: its largest and most negative eigenvalues, trace and spectral density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from lamina.analyze.curvature.density import Density, Trace, hutchinson, spectral_density
from lamina.analyze.curvature.lanczos import Eigenvalue, Tick, extremes
from lamina.analyze.curvature.operator import HessianOperator
from lamina.analyze.curvature.power import power_iteration

DENSITY_STEPS = 40
"""Products for each random vector of a density: the number of vectors that Lanczos keeps."""


@dataclass(frozen=True)
class BatchCurvature:
    """The curvature of the loss on one mini-batch."""

    images: int
    loss: float
    """Without the L2 term."""
    top: tuple[Eigenvalue, ...]
    """Largest eigenvalues, descending."""
    bottom: tuple[Eigenvalue, ...]
    """Most negative eigenvalues, ascending."""
    magnitude: tuple[Eigenvalue, ...]
    """Eigenvalues of largest magnitude by power iteration with deflation (PyHessian's method), in the order
    found; signs are kept."""
    trace: Trace | None
    density: Density | None
    products: int


@dataclass(frozen=True)
class Wanted:
    """What is computed of each mini-batch: numbers of eigenvalues and of random vectors."""

    top: int
    bottom: int
    power: int
    trace_probes: int
    density_probes: int
    tol: float
    seed: int


def measure_batch(
    operator: HessianOperator, images: int, number: int, wanted: Wanted, tick: Tick
) -> BatchCurvature:
    """The curvature of mini-batch `number`; random vectors are functions of the seed and that number."""

    def normal(purpose: int) -> Callable[[int], Float[Tensor, "n"]]:
        return lambda i: operator.normal(wanted.seed, number, purpose, i)

    def signs(purpose: int) -> Callable[[int], Float[Tensor, "n"]]:
        return lambda i: operator.signs(wanted.seed, number, purpose, i)

    start = operator.normal(wanted.seed, number, 0)
    ends = extremes(operator, start, normal(1), wanted.top, wanted.bottom, wanted.tol, tick=tick)
    magnitude = power_iteration(operator, normal(2), wanted.power, tick=tick)
    trace, density = None, None
    if wanted.trace_probes:
        trace = hutchinson(operator, signs(3), wanted.trace_probes, tick)
    if wanted.density_probes:
        probes, steps = wanted.density_probes, DENSITY_STEPS
        density = spectral_density(operator, signs(4), normal(5), probes, steps, tick)
    return BatchCurvature(images, operator.loss, *ends, magnitude, trace, density, operator.products)
