"""Images as rows of patches: cutting, joining, choosing some of them, and fixed 2-D positions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from lamina.core.errors import LaminaError


def patchify(images: Shaped[Tensor, "B C H W"], patch: tuple[int, int]) -> Shaped[Tensor, "B N K"]:
    """Cut into patches, row by row; K = patch height x patch width x C, channels last (as MAE does)."""
    b, c = images.shape[:2]
    (rows, columns), (ph, pw) = grid_of(images, patch), patch
    tiles = images.reshape(b, c, rows, ph, columns, pw)
    return tiles.permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, ph * pw * c)


def grid_of(images: Shaped[Tensor, "B C H W"], patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patches of images; raises where the sides are not multiples of the patch's."""
    (h, w), (ph, pw) = images.shape[-2:], patch
    if h % ph or w % pw:
        raise LaminaError(f"an image of {h} x {w} px cannot be cut into patches of {ph} x {pw} px")
    return h // ph, w // pw


def unpatchify(
    patches: Shaped[Tensor, "B N K"], patch: tuple[int, int], grid: tuple[int, int]
) -> Shaped[Tensor, "B C H W"]:
    """Join patches to images; the inverse of `patchify`."""
    b, _, k = patches.shape
    (gh, gw), (ph, pw) = grid, patch
    tiles = patches.reshape(b, gh, gw, ph, pw, k // (ph * pw))
    return tiles.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, gh * ph, gw * pw)


def take(rows: Shaped[Tensor, "B N *rest"], index: Int64[Tensor, "B m"]) -> Shaped[Tensor, "B m *rest"]:
    """The rows at `index`, for each sample of the batch."""
    if rows.ndim == 2:
        return rows.gather(1, index)
    return rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1]))


def split_indices(
    mask: Bool[Tensor, "B N"], n_visible: int
) -> tuple[Int64[Tensor, "B n"], Int64[Tensor, "B m"]]:
    """Indices of the visible and of the hidden patches, each ascending.

    `n_visible` is a Python number, so shapes are static and nothing waits for the device; it must be
    the count of False in every row (`masking.n_visible`).
    """
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)
    return order[:, :n_visible], order[:, n_visible:]


def sincos_2d(width: int, grid: tuple[int, int]) -> Float[Tensor, "N width"]:
    """Fixed 2-D sine-cosine positions in float32 (MAE, after Vaswani et al. 2017).

    The first half of the channels encodes the column, the second half the row; each half is all sines,
    then all cosines, of the coordinate at `width / 4` frequencies from 1 to 1/10000.
    """
    if width % 4:
        raise LaminaError(f"sine-cosine positions need a width that 4 divides, not {width}")
    omega = 1 / 10000 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    halves = [axis.reshape(-1, 1) * omega for axis in (columns, rows)]
    return torch.cat([f(h) for h in halves for f in (torch.sin, torch.cos)], dim=1).float()
