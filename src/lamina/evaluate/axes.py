"""Features standardised and turned to their principal axes: wide ones then cost no more than narrow ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True)
class Standardiser:
    """Takes off the training mean, divides by the training deviation and by the root of the width.

    A row then has a mean squared length of 1, whatever its width, so one sweep of a penalty suits 192
    features and 12,288 pixels alike. Features that never change become 0.
    """

    mean: Float64[Tensor, "D"]
    scale: Float64[Tensor, "D"]

    @classmethod
    def of(cls, features: Float[Tensor, "n D"]) -> Standardiser:
        """The statistics of the training features."""
        deviation, mean = torch.std_mean(features.double(), dim=0, correction=0)
        noise = 1e-6 * torch.maximum(mean.abs(), deviation)  # what float32 features cannot resolve
        steady = deviation <= noise.clamp_min(torch.finfo(torch.float32).tiny)
        scale = (deviation * len(mean) ** 0.5).reciprocal().masked_fill(steady, 0.0)
        return cls(mean, scale)

    def __call__(self, features: Float[Tensor, "m D"]) -> Float64[Tensor, "m D"]:
        """Standardise training or test features."""
        return (features.double() - self.mean) * self.scale


class PrincipalAxes:
    """An orthonormal basis of the span of n standardised samples: at most min(n, D) axes.

    A linear model with a squared penalty on its weights has its optimum in that span, so fitting in these
    coordinates is exact, and 12,288 pixels of 2,000 samples become 2,000 coordinates. The basis comes from
    the smaller of the two Gram matrices in float64; axes that rounding cannot tell from zero are dropped.
    """

    def __init__(self, x: Float64[Tensor, "n D"]) -> None:
        n, d = x.shape
        square, vectors = torch.linalg.eigh(x @ x.T if d > n else x.T @ x)
        kept = square > max(n, d) * torch.finfo(torch.float64).eps * square[-1].clamp_min(1e-30)
        vectors = vectors[:, kept]
        self.basis = x.T @ (vectors / square[kept].sqrt()) if d > n else vectors
        self.rows = self(x)

    def __call__(self, x: Float64[Tensor, "m D"]) -> Float64[Tensor, "m r"]:
        """Coordinates of other samples; what lies outside the span is invisible to the model."""
        coordinates: Tensor = x @ self.basis
        return coordinates
