"""Pixels as the target: raw, normalised in each patch (MAE), or low-passed first (PixMIM)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.patches import patchify, take

_EPS = 1e-6


def ellipse(size: tuple[int, int], cutoff: float, device: torch.device | str = "cpu") -> Bool[Tensor, "H W2"]:
    """Frequencies of a real 2-D FFT that an ideal low-pass keeps: (f_y / c)^2 + (f_x / c)^2 <= 1.

    Frequencies are in units of Nyquist along each axis, so that a rectangle gets an ellipse of bins and
    every direction the same cutoff in cycles per pixel.
    """
    # Made on the device: a copy from the CPU would wait for it. MPS has no float64.
    dtype = torch.float32 if torch.device(device).type == "mps" else torch.float64
    rows = torch.fft.fftfreq(size[0], dtype=dtype, device=device)[:, None] * 2
    columns = torch.fft.rfftfreq(size[1], dtype=dtype, device=device)[None] * 2
    keep: Tensor = rows.square() + columns.square() <= cutoff**2 + 1e-12
    return keep


def low_pass(images: Float[Tensor, "B C H W"], cutoff: float) -> Float[Tensor, "B C H W"]:
    """Ideal low-pass by a fraction of Nyquist (PixMIM, arXiv 2303.02416, section 3.2).

    PixMIM's code centres its circle half a bin off and takes the absolute value of a complex image; here
    the filter is centred and the result real.
    """
    keep = ellipse((images.shape[-2], images.shape[-1]), cutoff, images.device)
    # FFTs of other precisions do not exist on every device.
    spectrum = torch.fft.rfft2(images if images.dtype == torch.float64 else images.float())
    low: Tensor = torch.fft.irfft2(spectrum * keep, s=images.shape[-2:])
    return low.to(images.dtype)


class Pixels(nn.Module):
    """Pixels of each patch, normalised by channel statistics and, by default, within the patch.

    Args:
        patch: height and width of a patch in px.
        mean, std: channel statistics on [0, 1].
        norm_pix: subtract the patch's mean, divide by sqrt(unbiased variance + 1e-6), over its pixels and
            channels together (He et al., arXiv 2111.06377, section 4.2).
        low_pass: cutoff as a fraction of Nyquist, or None.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        patch: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        norm_pix: bool = True,
        low_pass: float | None = None,
    ) -> None:
        super().__init__()
        if low_pass is not None and low_pass <= 0:
            raise LaminaError(
                f"target.low_pass {low_pass} must be positive: a fraction of the Nyquist frequency"
            )
        self.patch, self.norm_pix, self.low_pass = patch, norm_pix, low_pass
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @property
    def width(self) -> int:
        """K, numbers in a patch."""
        return self.patch[0] * self.patch[1] * len(self.mean)

    def forward(self, images: Shaped[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N K"], None]:
        """The target of every patch (channels last within a patch), and no scores."""
        patches = self._patches(images)
        if not self.norm_pix:
            return patches, None
        mean, scale = _statistics(patches)
        return (patches - mean) / scale, None

    def to_pixels(
        self, values: Float[Tensor, "B m K"], where: Int64[Tensor, "B m"], images: Shaped[Tensor, "B C H W"]
    ) -> Float[Tensor, "B m K"]:
        """Predicted values as pixels on [0, 1]: undoes both normalisations.

        With `norm_pix` a prediction has no brightness or contrast of its own: those of the target patch in
        `images` are used, which is what makes the picture visible.
        """
        if self.norm_pix:
            mean, scale = (take(t, where) for t in _statistics(self._patches(images)))
            values = values * scale + mean
        c = len(self.mean)
        colours = values.reshape(*values.shape[:-1], -1, c) * self.std.view(c) + self.mean.view(c)
        return colours.flatten(-2)

    def after_step(self, step: int) -> None:
        """Nothing moves: the target is a function of the image."""

    def _patches(self, images: Tensor) -> Tensor:
        images = unit_float(images)
        if self.low_pass is not None:
            images = low_pass(images, self.low_pass)
        return patchify((images - self.mean) / self.std, self.patch)


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + _EPS).sqrt()
