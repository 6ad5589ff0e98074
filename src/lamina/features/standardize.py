"""Features standardised, and wide ones made as narrow as there are samples, so that they cost no more."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_JITTER = 1e-10
_ROWS = 1 << 14


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
        """The statistics of the training features, in float64 without a copy of them all."""
        parts, n = torch.split(features, _ROWS), len(features)
        mean = torch.stack([part.double().sum(dim=0) for part in parts]).sum(dim=0) / n
        squares = [(part.double() - mean).square().sum(dim=0) for part in parts]
        deviation = (torch.stack(squares).sum(dim=0) / n).sqrt()
        noise = 1e-6 * torch.maximum(mean.abs(), deviation)  # what float32 features cannot resolve
        steady = deviation <= noise.clamp_min(torch.finfo(torch.float32).tiny)
        scale = (deviation * len(mean) ** 0.5).reciprocal().masked_fill(steady, 0.0)
        return cls(mean, scale)

    def __call__(self, features: Float[Tensor, "m D"]) -> Float64[Tensor, "m D"]:
        """Standardise training or test features."""
        return (features.double() - self.mean) * self.scale


def standardised(
    train: Float[Tensor, "n D"], *others: Float[Tensor, "_ D"]
) -> tuple[Float[Tensor, "_ D"], ...]:
    """Training and other features, all standardised by the training ones, in float32."""
    standardise = Standardiser.of(train)
    found = []
    for features in (train, *others):
        found.append(torch.empty(features.shape))
        for start in range(0, len(features), _ROWS):
            found[-1][start : start + _ROWS] = standardise(features[start : start + _ROWS])
    return tuple(found)


class Compact:
    """n standardised samples of D features in at most n coordinates, with the same inner products.

    A linear model with a squared penalty on its weights has its optimum in the span of the samples and knows
    them by their inner products alone. So where D > n, samples become the rows of the Cholesky factor of
    their Gram matrix, and fitting there is exact: 12,288 pixels of 2,000 samples cost what 2,000 do.
    (`_JITTER`, relative to the samples' mean squared length of 1, keeps the factor defined: centred samples
    have no full rank.)
    """

    def __init__(self, x: Float64[Tensor, "n D"]) -> None:
        n, d = x.shape
        self._x = x
        self._factor: Float64[Tensor, "n n"] | None = None
        if d > n:
            gram = x @ x.T
            gram.diagonal().add_(_JITTER)
            self._factor = torch.linalg.cholesky(gram)
        self.rows: Float64[Tensor, "n r"] = x if self._factor is None else self._factor

    def __call__(self, x: Float64[Tensor, "m D"]) -> Float64[Tensor, "m r"]:
        """Coordinates of other samples; what lies outside the span of the first is invisible to the model."""
        if self._factor is None:
            return x
        found: Tensor = torch.linalg.solve_triangular(self._factor, self._x @ x.T, upper=False).T
        return found
