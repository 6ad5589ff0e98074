"""Both ends of a symmetric operator's spectrum by Lanczos, with full reorthogonalisation and restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lamina.core.errors import LaminaError

Product = Callable[[Tensor], Tensor]
Tick = Callable[[float], None]


@dataclass(frozen=True)
class Eigenvalue:
    """An eigenvalue as it was found, in units of the loss per squared weight."""

    value: float
    residual: float
    """||H v - value v|| for its vector of length one: an eigenvalue of H is at most that far away."""
    converged: bool


class Krylov:
    """Orthonormal vectors q_0 .. q_m, and the operator projected on all but the last.

    Args:
        product: v -> A v of a symmetric A.
        start: the first vector, of any length.
        size: how many vectors the space holds beside the last one.
        fresh: i -> the i-th random vector; one is needed where the space has become invariant.
    """

    def __init__(
        self, product: Product, start: Float[Tensor, "n"], size: int, fresh: Callable[[int], Tensor]
    ) -> None:
        self.product, self.fresh = product, fresh
        self.size = min(size, len(start))
        self.basis = start.new_zeros(self.size + 1, len(start))
        self.basis[0] = start / start.norm()
        self.projected = np.zeros((self.size, self.size))
        self.coupling = 0.0  # |A q_m-1| beyond the space
        self.count = 0
        self._draws = 0

    def grow(self) -> None:
        """One product: the last vector enters the space, and a new last one is found."""
        j = self.count
        product = self.product(self.basis[j])
        w, taken = self._outside(product, j + 1)
        self.projected[j, : j + 1] = self.projected[: j + 1, j] = taken
        self.count += 1
        self.coupling = float(w.norm())
        # By its own length: what is noise beside the largest value can be a small value's residual.
        if self.coupling <= _rounding(w, float(product.norm())):  # the space is invariant
            self.coupling = 0.0
            if self.count >= w.numel():
                return
            w = self._outside(self.fresh(self._draws), j + 1)[0]
            self._draws += 1
        self.basis[j + 1] = w / w.norm()

    def ritz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ascending Ritz values (m,), their vectors in the space as columns (m, m), and residuals (m,)."""
        m = self.count
        values, vectors = np.linalg.eigh(self.projected[:m, :m])
        return values, vectors, self.coupling * np.abs(vectors[-1])

    def vector(self, inside: np.ndarray) -> Float[Tensor, "n"]:
        """A vector of the space from its coordinates."""
        v = self.basis[: len(inside)].T @ torch.from_numpy(inside).to(self.basis)
        unit: Tensor = v / v.norm()
        return unit

    def restart(self, keep: list[int]) -> None:
        """Go on with these Ritz vectors alone, and the last vector: a thick restart."""
        values, vectors, _ = self.ritz()
        kept = torch.from_numpy(np.ascontiguousarray(vectors[:, keep].T)).to(self.basis)
        last = self.basis[self.count].clone()
        self.basis[: len(keep)] = kept @ self.basis[: self.count]
        self.basis[len(keep)] = last
        self.projected[:] = 0
        self.projected[range(len(keep)), range(len(keep))] = values[keep]
        self.count = len(keep)

    def _outside(self, w: Tensor, m: int) -> tuple[Tensor, np.ndarray]:
        """What of w is orthogonal to the first m vectors (twice is enough), and its part along each."""
        taken = torch.zeros(m, dtype=torch.float64)
        for _ in range(2):
            along = self.basis[:m] @ w
            w = w - self.basis[:m].T @ along
            taken += along.double().cpu()
        return w, taken.numpy()


def extremes(
    product: Product,
    start: Float[Tensor, "n"],
    fresh: Callable[[int], Tensor],
    top: int,
    bottom: int,
    tol: float = 1e-3,
    max_products: int = 200,
    max_vectors: int = 40,
    tick: Tick = lambda residual: None,
) -> tuple[tuple[Eigenvalue, ...], tuple[Eigenvalue, ...]]:
    """The `top` largest eigenvalues, descending, and the `bottom` most negative ones, ascending.

    One Krylov space serves both ends (Wu and Simon, "Thick-restart Lanczos method for large symmetric
    eigenvalue problems", SIAM J. Matrix Anal. Appl. 22 (2000)). It stops when each residual is at most `tol`
    times the magnitude of its own value, or after `max_products`; then each value is measured by one more
    product. Each has a scale of its own because the ends can differ a thousandfold: beside the largest
    value, any vector of the near-null space is a good one. A value that is zero up to rounding needs a
    residual that is so too. Of an eigenvalue that occurs several times it may find one. It holds
    max_vectors + 1 vectors, and at most half as many again while it restarts.

    Args:
        tick: called after each product with the largest residual over its own value's magnitude (NaN before
            there are as many values as are wanted).

    Raises:
        LaminaError: for more values than there are parameters, or than products allow, or a tol of 0.
    """
    wanted = top + bottom
    if min(top, bottom) < 0 or wanted < 1 or wanted > len(start):
        raise LaminaError(
            f"top {top} and bottom {bottom} of {len(start)} eigenvalues; give a sum from 1 to all"
        )
    if max_products < wanted:
        raise LaminaError(f"{max_products} products cannot give {wanted} eigenvalues; raise max_products")
    if not tol > 0:
        raise LaminaError(f"tol is {tol}; give a share of the values above 0, such as 0.001")
    space = Krylov(product, start, max(max_vectors, 2 * wanted + 4), fresh)
    for _ in range(max_products):
        if space.count == space.size:
            space.restart(_kept(space.size, top, bottom))
        space.grow()
        values, _, residuals = space.ritz()
        enough = space.count >= wanted
        ends = [*range(bottom), *range(space.count - top, space.count)] if enough else []
        noise = _rounding(start, float(np.abs(values).max()))
        worst = max(_relative(values[i], residuals[i], noise) for i in ends) if enough else float("nan")
        tick(worst)
        if worst <= tol or space.count == len(start):
            break
    return _measured(space, top, bottom, tol, tick)


def _measured(
    space: Krylov, top: int, bottom: int, tol: float, tick: Tick
) -> tuple[tuple[Eigenvalue, ...], tuple[Eigenvalue, ...]]:
    """Rayleigh quotients of the Ritz vectors and their true residuals, a product each."""
    values, vectors, _ = space.ritz()
    noise = _rounding(space.basis, float(np.abs(values).max()))
    found = []
    for i in [*range(len(values) - 1, len(values) - 1 - top, -1), *range(bottom)]:
        v = space.vector(vectors[:, i])
        hv = space.product(v)
        value = float(v @ hv)
        residual = float((hv - value * v).norm())
        error = _relative(value, residual, noise)
        # Rounding shows in what is measured and not in what the space says of itself.
        found.append(Eigenvalue(value, residual, error <= 2 * tol))
        tick(error)
    return tuple(found[:top]), tuple(found[top:])


def _relative(value: float, residual: float, noise: float) -> float:
    """A residual over the magnitude of its value; 0 where both are zero up to rounding."""
    if max(abs(value), residual) <= noise:
        return 0.0
    return float(residual / max(abs(value), np.finfo(float).tiny))


def _rounding(vectors: Tensor, size: float) -> float:
    """What rounding can add to a product of that length."""
    return float(10 * torch.finfo(vectors.dtype).eps * size)


def _kept(size: int, top: int, bottom: int) -> list[int]:
    """Which Ritz values a restart keeps: the wanted ones, and half of the others, from the same ends."""
    spare = (size - top - bottom) // 2
    above = spare * top // (top + bottom)
    return [*range(bottom + spare - above), *range(size - top - above, size)]
