"""Histograms of oriented gradients as the target (MaskFeat)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.batch import unit_float
from lamina.core.errors import LaminaError
from lamina.core.patches import grid_of
from lamina.core.text import counted


class HOG(nn.Module):
    """Which way brightness changes in each cell of a patch (MaskFeat, Wei et al., arXiv 2112.09133; Dalal
    and Triggs 2005).

    For each channel of its own: Sobel gradients of the image, reflected at its edges; an orientation without
    sign, atan2(gx, gy) modulo pi, hence counted from the vertical, in one of `bins` equal bins, no
    interpolation; magnitudes, weighted by a Gaussian window, summed in each bin over a cell; the bins of a
    cell brought to length one. A patch is its channels, bins, cell rows, cell columns, in this order.

    No channel statistics are used: those of the published pipelines (ImageNet mean and standard deviation)
    drop out, for a gradient knows no mean and the length no scale. So gradients are taken of whole numbers,
    where those of 8- and 16-bit images are exact, and so is the bin of each pixel: many of their gradients
    are exactly vertical or horizontal, and rounding would turn them into a bin at random.

    Args:
        patch: height and width of a patch in px, multiples of the cell.
        in_chans: channels of the images.
        bins: orientations in half a turn.
        cell: side of a cell in px.
        gaussian: side in px of the window, of standard deviation half of it, that is laid over the image edge
            to edge from the top left (16 in mmpretrain's MaskFeat, any image size here); None weighs all
            pixels alike (SlowFast's MaskFeat).

    Raises:
        LaminaError: for a patch that cells do not tile, and images of another size or channel count.
    """

    def __init__(
        self,
        patch: tuple[int, int],
        in_chans: int = 3,
        bins: int = 9,
        cell: int = 8,
        gaussian: int | None = 16,
    ) -> None:
        super().__init__()
        if bins < 1 or cell < 1 or (gaussian is not None and gaussian < 1):
            raise LaminaError(
                f"HOG with {bins} bins, cells of {cell} px, a window of {gaussian} px: each must be 1 or more"
            )
        if patch[0] % cell or patch[1] % cell:
            raise LaminaError(
                f"a patch of {patch[0]} x {patch[1]} px cannot be tiled by HOG cells of {cell} px; choose a "
                "cell that divides the patch"
            )
        self.patch, self.in_chans, self.bins = patch, in_chans, bins
        self.cell, self.gaussian = cell, gaussian

    @property
    def width(self) -> int:
        """K, numbers in a patch: 108 for 16 px RGB."""
        return self.bins * self.in_chans * (self.patch[0] // self.cell) * (self.patch[1] // self.cell)

    def forward(self, images: Shaped[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N K"], None]:
        """The histograms of every patch, and no scores."""
        self._check(images)
        gx, gy = sobel(whole_levels(images))
        weight = (gx.square() + gy.square()).sqrt() * self._window(gx)
        bin_of = orientation(gx, gy, self.bins)
        # Bin after bin: a scatter would add in any order on a GPU, or need the image `bins` times over.
        cells = [self._pool(weight * (bin_of == k)) for k in range(self.bins)]
        return self._patches(F.normalize(torch.stack(cells, dim=2), dim=2)), None

    def after_step(self, step: int) -> None:
        """Nothing moves: the target is a function of the image."""

    def _check(self, images: Tensor) -> None:
        if images.shape[1] != self.in_chans:
            built = counted(self.in_chans, "channel")
            raise LaminaError(
                f"HOG was built for {built}, the images have {images.shape[1]}; build it with that in_chans"
            )
        grid_of(images, self.patch)

    def _window(self, like: Tensor) -> Tensor | float:
        """The Gaussian weights of all pixels (H, W); their sum does not matter, lengths are made one."""
        if self.gaussian is None:
            return 1.0
        rows, columns = (self._bell(side, like) for side in like.shape[-2:])
        return rows[:, None] * columns

    def _bell(self, side: int, like: Tensor) -> Tensor:
        assert self.gaussian is not None
        place = torch.arange(side, device=like.device) % self.gaussian
        from_centre = (place.to(like.dtype) - (self.gaussian - 1) / 2) / (self.gaussian / 2)
        return (-0.5 * from_centre.square()).exp()

    def _pool(self, values: Tensor) -> Tensor:
        """Sums over cells: (B, C, H, W) to (B, C, H / cell, W / cell)."""
        b, c, height, width = values.shape
        cell = self.cell
        return values.reshape(b, c, height // cell, cell, width // cell, cell).sum((3, 5))

    def _patches(self, cells: Tensor) -> Tensor:
        """(B, C, bins, H / cell, W / cell) as (B, N, K)."""
        b, c, bins, rows, columns = cells.shape
        height, width = self.patch[0] // self.cell, self.patch[1] // self.cell
        tiles = cells.reshape(b, c * bins, rows // height, height, columns // width, width)
        return tiles.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, self.width)


_LEVELS = 65535.0
"""257 times 255: values of 8-bit images on [0, 1], and those of 16-bit ones, become whole numbers again."""


def whole_levels(images: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Pixels in a scale in which stored images are whole numbers, without rounding."""
    if images.is_floating_point():
        # Below float32 a gradient of two near values is mostly rounding.
        return (images if images.element_size() >= 4 else images.float()) * _LEVELS
    unit_float(images[:0])  # refuses other integers
    return images.float() * (_LEVELS / torch.iinfo(images.dtype).max)


def orientation(
    gx: Float[Tensor, "*shape"], gy: Float[Tensor, "*shape"], bins: int
) -> Int64[Tensor, "*shape"]:
    """floor(bins * angle / pi) of each gradient without sign, its angle in [0, pi) from the vertical.

    Counted by the side of each boundary on which the gradient lies, in float64 (float32 on MPS, which has no
    other): of whole numbers up to 2**20 that is exact, those on a boundary included.
    """
    if gx.device.type != "mps":
        gx, gy = gx.double(), gy.double()
    turned = (gx < 0) | ((gx == 0) & (gy < 0))
    gx, gy = gx.where(~turned, -gx), gy.where(~turned, -gy)
    count = torch.zeros_like(gx, dtype=torch.int64)
    for k in range(1, bins):
        # Cosine and sine of k * pi / bins: where both are equal, or one is zero, to the last bit.
        cosine, sine = (math.sin(math.pi * part / (2 * bins)) for part in (bins - 2 * k, 2 * k))
        count += gx * cosine >= gy * sine
    return count


def sobel(images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B C H W"]]:
    """Gradients along x and y by the 3 x 3 Sobel kernels, per channel, the image reflected at its edges.

    Sums of slices instead of a convolution: autocast and TF32 would round that one.
    """
    x = F.pad(images, (1, 1, 1, 1), mode="reflect")
    down = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    across = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    return down[..., 2:] - down[..., :-2], across[..., 2:, :] - across[..., :-2, :]
