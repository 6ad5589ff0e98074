"""The Hessian of a loss by its products with vectors: ends of its spectrum, trace, density."""

from __future__ import annotations

from lamina.analyze.curvature.density import Density, pooled, spectral_density
from lamina.analyze.curvature.lanczos import Eigenvalue, extremes
from lamina.analyze.curvature.operator import HessianOperator, Parameters
from lamina.analyze.curvature.power import power_iteration
from lamina.analyze.curvature.trace import Trace, hutchinson

__all__ = [
    "Density",
    "Eigenvalue",
    "HessianOperator",
    "Parameters",
    "Trace",
    "extremes",
    "hutchinson",
    "pooled",
    "power_iteration",
    "spectral_density",
]
