"""Reconstructions of a method and maps of its patch features, as plain tensors.

Nothing here draws from torch's own generator, so looking at a method while it trains changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lamina.analyze.measures.patch_maps import CLIPPED, principal
from lamina.core.batch import Batch, unit_float, with_keys
from lamina.core.errors import LaminaError
from lamina.core.frozen import device_of, eval_mode
from lamina.core.patches import patchify, unpatchify
from lamina.core.shown_pixels import to_uint8
from lamina.methods.reconstruct import check_pixels, fill, predicts_pixels
from lamina.mim import MIM

HIDDEN_GREY = 0.5


@dataclass(frozen=True)
class Reconstruction:
    """Pictures of equal size: what was given, what the encoder saw, and what the method made of it.

    In `masked`, hidden pixels are mid-grey and `hidden` says which they are. In `reconstruction`, visible
    patches are the given ones; a hidden patch that the method does not predict stays grey. It is None for a
    method that predicts something other than pixels.
    """

    original: UInt8[Tensor, "B C H W"]
    masked: UInt8[Tensor, "B C H W"]
    reconstruction: UInt8[Tensor, "B C H W"] | None
    hidden: Bool[Tensor, "B H W"]


@dataclass(frozen=True)
class PcaMap:
    """The first three principal components of patch features as red, green, blue, one pixel a patch."""

    colours: UInt8[Tensor, "B 3 gh gw"]
    explained: tuple[float, float, float]


def reconstruct(method: MIM, batch: Batch) -> Reconstruction:
    """Hide patches and let the method fill them in.

    The method's prediction is turned back to pixels by its own target (`target.to_pixels`): per-patch
    normalisation is undone with the mean and deviation of the true patch, as MAE's figures do. Visible
    patches are pasted. Without `batch.mask` the method's masking draws one from `batch.keys`.
    Raises LaminaError for a target that is not made of pixels.
    """
    check_pixels(method)
    return mask_and_reconstruct(method, batch)


def mask_and_reconstruct(method: MIM, batch: Batch) -> Reconstruction:
    """As `reconstruct`; without a reconstruction for a target that is not made of pixels."""
    batch = with_keys(batch.to(device_of(method)))
    given = unit_float(batch.images).float()
    patch, grid = method.encoder.patch, method.encoder.grid_of(batch.images)
    patches = patchify(given, patch)
    filled = None
    with eval_mode(method):
        made = fill(method, batch) if predicts_pixels(method) else None
        hidden = method.mask(batch) if made is None else made.mask
        masked = patches.masked_fill(hidden[..., None], HIDDEN_GREY)
        if made is not None:
            pixels = made.pixels.float()
            scattered = masked.scatter(1, made.where[..., None].expand_as(pixels), pixels)
            filled = to_uint8(unpatchify(torch.where(hidden[..., None], scattered, patches), patch, grid))
    area = hidden[..., None].expand(-1, -1, patch[0] * patch[1])
    return Reconstruction(
        original=to_uint8(given).cpu(),
        masked=to_uint8(unpatchify(masked, patch, grid)).cpu(),
        reconstruction=None if filled is None else filled.cpu(),
        hidden=unpatchify(area, patch, grid)[:, 0].cpu(),
    )


def patch_features(method: MIM, batch: Batch, size: int = 32) -> Float[Tensor, "B N D"]:
    """Normed patch tokens of the last block, nothing hidden; float32 on the CPU, `size` images at a time."""
    encoder, device = method.encoder, device_of(method)
    rows = []
    with eval_mode(method):
        for part in batch.split(size):
            (last,) = encoder(part.to(device).images, (encoder.depth - 1,))
            rows.append(encoder.norm(last)[:, encoder.n_prefix :].float().cpu())
    return torch.cat(rows)


def pca_map(features: Float[Tensor, "B N D"], grid: tuple[int, int]) -> PcaMap:
    """Patch features as colours: equal colours are similar features, across all images given.

    Each component is stretched between its 1st and 99th percentile over all patches of all images.
    """
    b, n, d = features.shape
    if d < 3:
        raise LaminaError(f"a PCA map needs features of at least 3 dimensions, not {d}")
    components, share = principal(features.reshape(b * n, d))
    low, high = components.quantile(torch.tensor(CLIPPED, dtype=components.dtype), dim=0)
    colours = (components - low) / (high - low).clamp_min(1e-12)
    image = to_uint8(colours).reshape(b, *grid, 3).permute(0, 3, 1, 2)
    first, second, third = share.tolist()
    return PcaMap(image.contiguous(), (first, second, third))
