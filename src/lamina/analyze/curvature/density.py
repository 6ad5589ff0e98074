"""Trace and spectral density of a symmetric operator, estimated by random vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lamina.analyze.curvature.lanczos import Krylov, Product, Tick
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


@dataclass(frozen=True)
class Density:
    """Points on the axis of eigenvalues that stand for shares of all of them; the shares sum to one."""

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    probes: int

    def moment(self, k: int) -> float:
        """The mean of the eigenvalues' k-th powers, tr(A^k) / n."""
        return float(np.dot(self.weights, np.power(self.nodes, k)))

    def at(self, values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
        """Share of eigenvalues per unit at these values, each point spread by a Gaussian."""
        if width <= 0:
            raise LaminaError(f"the width of a density is {width}; give more than 0")
        z = (values[:, None] - np.asarray(self.nodes)) / width
        shares: NDArray[np.float64] = np.exp(-(z**2) / 2) @ np.asarray(self.weights)
        shares /= width * np.sqrt(2 * np.pi)
        return shares


def spectral_density(
    product: Product,
    signs: Callable[[int], Float[Tensor, "n"]],
    fresh: Callable[[int], Float[Tensor, "n"]],
    probes: int,
    steps: int,
    tick: Tick = lambda residual: None,
) -> Density:
    """Gauss quadrature for each of `probes` random vectors (Ubaru, Chen and Saad, SIAM J. Matrix Anal. Appl.
    38 (2017); Ghorbani, Krishnan and Xiao, arXiv 1901.10159).

    A vector z of random signs gives the Ritz values of `steps` Lanczos steps and the squared first entries
    of their vectors; z'A^k z / n is exact for k < 2 steps, and its mean over z is tr(A^k) / n. It holds
    steps + 1 vectors.

    Args:
        signs: i -> the i-th vector of random signs.
        fresh: i -> a random vector, where a space becomes invariant.
        tick: called after each product with NaN: nothing converges here.
    """
    if probes < 1 or steps < 1:
        raise LaminaError(f"a density by {probes} probes of {steps} steps; give 1 or more of each")
    nodes: list[float] = []
    weights: list[float] = []
    for i in range(probes):
        space = Krylov(product, signs(i), steps, fresh)
        for _ in range(space.size):
            space.grow()
            tick(float("nan"))
            if space.coupling == 0:  # what is outside has no weight
                break
        values, vectors, _ = space.ritz()
        nodes += values.tolist()
        weights += (vectors[0] ** 2 / probes).tolist()
    return Density(tuple(nodes), tuple(weights), probes)


def pooled(densities: Sequence[Density]) -> Density:
    """The mean of several densities, such as those of mini-batches."""
    return Density(
        tuple(x for each in densities for x in each.nodes),
        tuple(x / len(densities) for each in densities for x in each.weights),
        sum(each.probes for each in densities),
    )
