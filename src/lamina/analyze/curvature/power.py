"""Eigenvalues of largest magnitude by power iteration with deflation, as PyHessian computes them."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lamina.analyze.curvature.lanczos import Eigenvalue, Product, Tick
from lamina.core.errors import LaminaError

_SMALL = 1e-6  # PyHessian's, added to what it divides by


def power_iteration(
    product: Product,
    start: Callable[[int], Float[Tensor, "n"]],
    top: int = 1,
    tol: float = 1e-3,
    max_products: int = 100,
    tick: Tick = lambda residual: None,
) -> tuple[Eigenvalue, ...]:
    """The `top` eigenvalues of largest *magnitude*, in the order found (Yao et al., arXiv 1912.07145).

    For each a random vector is multiplied until two Rayleigh quotients in turn differ by less than `tol` of
    the earlier one, which is then the value, or `max_products` times; those found before are projected out
    before each product. A negative end as long as the positive one shows up here with its sign; and since
    the rule asks for slow change, not for a small residual, a value may be far from any eigenvalue: see
    its residual, and `lanczos.extremes`. `converged` says that the rule was met.

    Args:
        start: i -> the random vector that the i-th search starts with.
        tick: called after each product with the residual over the value's magnitude.
    """
    if top < 0 or max_products < 1:
        raise LaminaError(
            f"power iteration needs top 0 or more and max_products 1 or more, not {top}, {max_products}"
        )
    values: list[Eigenvalue] = []
    found: list[Tensor] = []
    for i in range(top):
        value, v = _search(product, start(i), found, tol, max_products, tick)
        values.append(value)
        found.append(v)
    return tuple(values)


def _search(
    product: Product, v: Tensor, found: list[Tensor], tol: float, max_products: int, tick: Tick
) -> tuple[Eigenvalue, Tensor]:
    """One value, and the vector that later searches leave out."""
    best = None
    for _ in range(max_products):
        for other in found:
            v = v - (other @ v) * other
        v = v / (v.norm() + _SMALL * (v.norm() < _SMALL))
        hv = product(v)
        quotient = float(v @ hv)
        residual = float((hv - quotient * v).norm())
        tick(residual / max(abs(quotient), _SMALL))
        v = hv / (hv.norm() + _SMALL)
        if best is not None and abs(best.value - quotient) / (abs(best.value) + _SMALL) < tol:
            return Eigenvalue(best.value, best.residual, True), v
        best = Eigenvalue(quotient, residual, False)
    assert best is not None
    return best, v
