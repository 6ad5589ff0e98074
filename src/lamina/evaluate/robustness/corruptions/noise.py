"""Noise: Gaussian, shot and impulse noise."""

from __future__ import annotations

import numpy as np
from numpy.random import RandomState

from lamina.evaluate.robustness.corruptions.types import Pixels, Values

DEVIATIONS = (0.08, 0.12, 0.18, 0.26, 0.38)
"""Standard deviation of Gaussian noise on [0, 1], by severity."""
PHOTONS = (60, 25, 12, 5, 3)
"""Events that white stands for in shot noise, by severity."""
SHARES = (0.03, 0.06, 0.09, 0.17, 0.27)
"""Share of values that impulse noise replaces, by severity."""


def gaussian(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A number of N(0, deviation^2) added to each value."""
    return 255 * (image / 255 + draw.normal(scale=DEVIATIONS[severity - 1], size=image.shape))


def shot(image: Pixels, severity: int, draw: RandomState) -> Values:
    """Each value counted in events: Poisson of mean (and variance) value * photons, over photons."""
    photons = PHOTONS[severity - 1]
    return 255 * (draw.poisson(image / 255 * photons) / photons)


def impulse(image: Pixels, severity: int, draw: RandomState) -> Values:
    """A share of the values, each channel by itself, made black or white with equal chances."""
    replaced = draw.random_sample(image.shape) < SHARES[severity - 1]
    white = draw.random_sample(image.shape) < 0.5
    return np.where(replaced, np.where(white, 255.0, 0.0), image)
