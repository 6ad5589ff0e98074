"""An encoder that is open, at another image size: the same weights, positions resampled to the other grid."""

from __future__ import annotations

from dataclasses import replace

from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.interop.backbone import Backbone
from lamina.interop.load_weights import check_unshaped, fit_positions, mismatches, refolded


def at_image_size(backbone: Backbone, size: tuple[int, ...]) -> Backbone:
    """The same network for images of `size`: a side, or height and width, in px.

    Absolute and relative positions are resampled as timm does; rotary ones follow the grid by themselves.
    `Origin.resized` says it in a sentence, and `Origin.recipe` stays what the network was trained by.

    Raises:
        LaminaError: for a size that is no multiple of the patch, or a backbone that was put together by hand.
    """
    patch, before = backbone.encoder.patch, backbone.image_size
    if len(size) not in (1, 2):
        raise LaminaError(f"an image size is a side, or height and width, not {len(size)} numbers")
    asked = (size[0], size[-1])
    if any(side < 1 or side % part for side, part in zip(asked, patch, strict=True)):
        whole = f"{patch[0]} x {patch[1]}"
        raise LaminaError(
            f"images of {asked[0]} x {asked[1]} px are no multiple of the encoder's patch, {whole}"
        )
    if asked == before:
        return backbone
    origin = backbone.known_origin
    options = replace(origin.recipe.encoder, image_size=asked)
    encoder = wrap_vit(build_vit(options), options)
    resampled = copy_weights(encoder, backbone)
    (rows, columns), (new_rows, new_columns) = backbone.encoder.grid, encoder.grid
    how = "positions resampled" if resampled else "positions follow the grid"
    told = (
        f"images of {asked[0]} x {asked[1]} px, in place of the {before[0]} x {before[1]} px of its training"
        f": {how}, from {rows} x {columns} to {new_rows} x {new_columns} patches"
    )
    resized = Backbone(encoder, backbone.fusion, replace(origin, image_size=asked, resized=told))
    return resized.to(backbone.encoder.mean.device)


def copy_weights(encoder: Encoder, backbone: Backbone) -> bool:
    """Fill the encoder with the weights of another that is open, of the same network but for its image size
    and its residual decay; whether positions were resampled to another grid.

    Raises:
        LaminaError: where the networks differ in more. Nothing is changed then.
    """
    name = "the encoder" if backbone.origin is None else backbone.origin.name
    check_unshaped(encoder.vit, backbone.encoder.vit, name)
    found = dict(backbone.encoder.vit.state_dict())
    resampled = fit_positions(found, encoder.vit, backbone.encoder.grid)
    if problems := mismatches(encoder.vit.state_dict(), found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    encoder.vit.load_state_dict(refolded(encoder.vit, found, backbone.encoder.factors, encoder.factors))
    return resampled is not None
