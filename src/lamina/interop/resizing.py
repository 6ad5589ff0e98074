"""An open encoder for another image size: the same weights, with positions resampled to the other grid."""

from __future__ import annotations

from dataclasses import replace

from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.interop.backbone import Backbone
from lamina.interop.load_weights import check_heads_and_activation, convert_decay, mismatches
from lamina.interop.positions import fit_positions


def at_image_size(backbone: Backbone, size: tuple[int, ...]) -> Backbone:
    """The same network for images of `size`: a side, or height and width, in px.

    Absolute and relative positions are resampled as timm does; rotary ones follow the grid by themselves.
    `Origin.resized` describes the change in a sentence, and `Origin.recipe` stays that of the training.

    Raises:
        LaminaError: for a size that is not a multiple of the patch, or a backbone that was built from parts.
    """
    patch, before = backbone.encoder.patch, backbone.image_size
    if len(size) not in (1, 2):
        raise LaminaError(
            f"an image size is one number for a square, or height and width, not {len(size)} numbers"
        )
    height, width = requested = (size[0], size[-1])
    if any(side < 1 or side % part for side, part in zip(requested, patch, strict=True)):
        raise LaminaError(
            f"an image size of {height} x {width} px is not a multiple of the encoder's patch of {patch[0]} "
            f"x {patch[1]} px; choose a multiple of it"
        )
    if requested == before:
        return backbone
    origin = backbone.known_origin
    options = replace(origin.recipe.encoder, image_size=requested)
    encoder = wrap_vit(build_vit(options), options)
    resampled = copy_weights(encoder, backbone)
    (rows, columns), (new_rows, new_columns) = backbone.encoder.grid, encoder.grid
    how = "positions resampled" if resampled else "positions follow the grid"
    sentence = (
        f"images of {height} x {width} px, in place of the {before[0]} x {before[1]} px of its training"
        f": {how}, from {rows} x {columns} to {new_rows} x {new_columns} patches"
    )
    resized = Backbone(encoder, backbone.fusion, replace(origin, image_size=requested, resized=sentence))
    return resized.to(backbone.encoder.mean.device)


def copy_weights(encoder: Encoder, backbone: Backbone) -> bool:
    """Copy the weights of an open encoder of the same network; image size and residual decay may differ.
    Returns whether positions were resampled to another grid.

    Raises:
        LaminaError: where the networks differ in anything else. Nothing is changed then.
    """
    name = "the encoder" if backbone.origin is None else backbone.origin.name
    check_heads_and_activation(encoder.vit, backbone.encoder.vit, name)
    found = dict(backbone.encoder.vit.state_dict())
    resampled = fit_positions(found, encoder.vit, backbone.encoder.grid)
    if problems := mismatches(encoder.vit.state_dict(), found):
        raise LaminaError(f"{name} does not fit this network: {problems}")
    encoder.vit.load_state_dict(convert_decay(encoder.vit, found, backbone.encoder.factors, encoder.factors))
    return resampled is not None
