"""The Hessian of one mini-batch: its largest and most negative eigenvalues, trace and spectral density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from lamina.analyze.catalog import HessianOptions
from lamina.analyze.curvature.density import Density, Trace, hutchinson, spectral_density
from lamina.analyze.curvature.lanczos import Eigenvalue, extremes
from lamina.analyze.curvature.operator import HessianOperator
from lamina.analyze.curvature.power import power_iteration
from lamina.core.batch import Batch

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


def measure_batch(
    task: nn.Module,
    batch: Batch,
    number: int,
    options: HessianOptions,
    progress: Callable[[int, float], None],
) -> BatchCurvature:
    """The curvature of mini-batch `number`; random vectors are functions of the seed and that number.

    `progress` is called after each product with the number of products and the relative residual.
    """
    seed = options.seed
    operator = HessianOperator(task, batch, options.parameters, options.weight_decay, options.mixed, seed)

    def tick(residual: float) -> None:
        progress(operator.products, residual)

    def normal(purpose: int) -> Callable[[int], Float[Tensor, "n"]]:
        return lambda i: operator.normal(seed, number, purpose, i)

    def signs(purpose: int) -> Callable[[int], Float[Tensor, "n"]]:
        return lambda i: operator.signs(seed, number, purpose, i)

    start = operator.normal(seed, number, 0)
    ends = extremes(operator, start, normal(1), options.top, options.bottom, options.tol, tick=tick)
    magnitude = power_iteration(operator, normal(2), options.power_iterations, tick=tick)
    trace, density = None, None
    if options.trace_probes:
        trace = hutchinson(operator, signs(3), options.trace_probes, tick)
    if options.density_probes:
        density = spectral_density(operator, signs(4), normal(5), options.density_probes, DENSITY_STEPS, tick)
    return BatchCurvature(len(batch), operator.loss, *ends, magnitude, trace, density, operator.products)
