"""Energy of patches by spatial frequency: the cosine transform, which assumes no periodic patch."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from scipy.fft import dctn
from torch import Tensor

from lamina.analyze.measures.fourier import Curve, radial


def frequencies(h: int, w: int) -> Float64[Tensor, "h w"]:
    """|omega| of each coefficient in units of pi (rad per px), the length of (k / h, l / w).

    The waves are cos(pi k (y + 1/2) / h) cos(pi l (x + 1/2) / w). None is at Nyquist itself (1 on an axis):
    what alternates from pixel to pixel is mostly in the highest, k = h - 1.
    """
    y, x = (torch.arange(n, dtype=torch.float64) / n for n in (h, w))
    return torch.hypot(y[:, None], x[None])


def energies(patches: Float[Tensor, "B m K"], patch: tuple[int, int]) -> Float64[Tensor, "B h w"]:
    """Squared coefficients of each image, mean over its patches and channels, float64 on the CPU.

    The transform (DCT-II of each patch and channel) is orthonormal: the mean over coefficients is the mean
    square of the pixels. A discrete Fourier transform would take each patch for periodic and find the step
    between its opposite sides, which a smooth patch has too, at all frequencies.
    """
    b, m, _ = patches.shape
    pixels = patches.double().cpu().reshape(b, m, *patch, -1)  # channels last
    found = torch.from_numpy(dctn(pixels.numpy(), axes=(2, 3), norm="ortho"))
    return found.square().mean((1, 4))


def energy_curve(energy: Float64[Tensor, "h w"]) -> Curve:
    """Mean energy per coefficient over rings of |omega|, pi / min(h, w) apart; first the patch mean."""
    at = frequencies(*energy.shape)
    return radial(energy, at, (at * min(energy.shape) + 1e-9).round().long())
