"""Measures of the number of dimensions that features use: RankMe, effective rank, alpha-ReQ and LiDAR."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float64
from scipy.stats import linregress
from torch import Tensor

from lamina.core.errors import LaminaError

FIRST_RANK = 10
"""alpha-ReQ leaves out the largest eigenvalues: they are few and seldom on the line."""
FEWEST_RANKS = 5


class PowerLaw(NamedTuple):
    """eigenvalue(i) ~ i ** -alpha, fitted to the ranks first..last, counted from 1."""

    alpha: float
    r2: float
    """Share of the variance of the log eigenvalues that the line explains."""
    first: int
    last: int


RANKME_EPSILON = 1e-7
"""What RankMe adds to each singular value's share."""


def rankme(features: Float[Tensor, "n d"]) -> float | None:
    """RankMe: exp of the entropy of the singular values, each over their sum, plus 1e-7; None where features
    are not finite.

    Garrido et al., "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", ICML 2023, arXiv 2210.02885, equation 1. Features are not centred: a large
    mean is one direction with a large share, and lowers the number. At most min(n, d) (but for the 1e-7).

    The singular values are those of the smaller Gram matrix: several times as fast as a decomposition of the
    features, and as exact as features in single precision are.
    """
    if not torch.isfinite(features).all():
        return None
    x = features.double()
    gram = x @ x.T if len(x) < x.shape[1] else x.T @ x
    return entropy_rank(torch.linalg.eigvalsh(gram).clamp_min(0).sqrt(), RANKME_EPSILON)


class Moments:
    """Mean and centred scatter of vectors that come in parts, in float64 (Chan et al., 1983)."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, part: Float[Tensor, "n d"]) -> None:
        """Some more vectors."""
        rows, m = part.cpu().double(), len(part)
        mean = rows.mean(dim=0)
        centred, shift = rows - mean, mean - self.mean
        total = self.n + m
        self.scatter += centred.T @ centred + torch.outer(shift, shift) * (self.n * m / total)
        self.mean += shift * (m / total)
        self.n = total

    def rankme(self) -> float:
        """`rankme` of all vectors."""
        gram = self.scatter + self.n * torch.outer(self.mean, self.mean)
        values: Tensor = torch.linalg.eigvalsh(gram).flip(0)[: min(self.n, len(self.mean))]
        return entropy_rank(values.clamp_min(0).sqrt(), RANKME_EPSILON)

    def effective_rank(self) -> float:
        """exp of the entropy of the singular values of the centred vectors, each over their sum.

        Roy and Vetterli, "The effective rank: A measure of effective dimensionality", EUSIPCO 2007. Two
        things differ from RankMe: the mean is taken off, and nothing is added. At most min(n - 1, d).
        """
        # The last of n is zero but for rounding, since the mean is taken off.
        return entropy_rank(self.variances()[: self.n - 1].sqrt())

    def power_law(self, first: int = FIRST_RANK, last: int | None = None) -> PowerLaw:
        """alpha-ReQ, the decay of the covariance's spectrum: minus the slope of log eigenvalue against log
        rank.

        Agrawal et al., "alpha-ReQ: Assessing Representation Quality in Self-Supervised Learning by measuring
        eigenspectrum decay", NeurIPS 2022. A least-squares line through the ranks `first` to `last` (by
        default min(d, n) // 2: beyond it the eigenvalues of few samples fall faster than those of the
        distribution).

        Raises:
            LaminaError: where that range holds fewer than 5 ranks, or eigenvalues that are zero.
        """
        values = self.variances()
        last = len(values) // 2 if last is None else last
        if first < 1 or last > len(values) or last - first + 1 < FEWEST_RANKS:
            raise LaminaError(
                f"alpha-ReQ needs {FEWEST_RANKS} ranks within 1..{len(values)}, not {first}..{last}; take "
                "more images, or an earlier first rank"
            )
        if values[last - 1] <= 1e-12 * values[0]:  # what is left of features in single precision
            raise LaminaError(f"the spectrum ends before rank {last}; take a smaller last rank")
        line = linregress(np.log(np.arange(first, last + 1)), values[first - 1 : last].log().numpy())
        return PowerLaw(-float(line.slope), float(line.rvalue) ** 2, first, last)

    def variances(self) -> Float64[Tensor, "k"]:
        """Eigenvalues of the covariance (over n - 1), in descending order; min(n, d) of them."""
        values: Tensor = torch.linalg.eigvalsh(self.scatter).flip(0)[: min(self.n, len(self.mean))]
        return values.clamp_min(0) / max(self.n - 1, 1)


class Scatters:
    """Scatter between images and between the views of an image, of images that come in parts."""

    def __init__(self, width: int) -> None:
        self.means = Moments(width)
        self.within = torch.zeros(width, width, dtype=torch.float64)

    def add(self, views: Float[Tensor, "n q d"]) -> None:
        """All views of some more images."""
        each = views.cpu().double()
        means = each.mean(dim=1)
        apart = (each - means[:, None]).flatten(0, 1)
        self.within += apart.T @ apart / views.shape[1]
        self.means.add(means)

    def lidar(self, delta: float = 1e-4, eps: float = 1e-8) -> float:
        """LiDAR: effective rank of the scatter between images, in units of the scatter between their views.

        Thilak et al., "LiDAR: Sensing Linear Probing Performance in Joint Embedding SSL Architectures", ICLR
        2024, arXiv 2312.04000, section 4. With m_i the mean of the q views of image i and m the mean of
        these, S_b = mean_i (m_i - m)(m_i - m)^T, S_w = mean_ij (x_ij - m_i)(x_ij - m_i)^T + delta I, and l
        the eigenvalues of S_w^-1/2 S_b S_w^-1/2: exp of the entropy of l / sum(l) + eps. At most
        min(n - 1, d) (but for `eps`). Where views differ less than sqrt(delta), delta decides.
        """
        n, width = self.means.n, len(self.means.mean)
        within = self.within / n + delta * torch.eye(width, dtype=torch.float64)
        # The eigenvalues of S_w^-1/2 S_b S_w^-1/2 are those of the pencil S_b v = l S_w v.
        values = scipy.linalg.eigh((self.means.scatter / n).numpy(), within.numpy(), eigvals_only=True)
        return entropy_rank(torch.from_numpy(values).flip(0)[: min(n - 1, width)].clamp_min(0), eps)


def entropy_rank(values: Float64[Tensor, "k"], eps: float = 0.0) -> float:
    """exp of the entropy of the values over their sum, plus `eps`; 0 where all are zero."""
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total + eps
    return float(torch.special.entr(shares).sum().exp())
