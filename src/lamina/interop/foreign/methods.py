"""Whole methods from files of other tools: MAE, MFF and CrossMAE with their decoder and fusion."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamina.core.config import differences, merge
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit, own_epsilon
from lamina.encoder.networks import set_epsilon
from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign import Foreign, read_foreign
from lamina.interop.foreign.format import Tensors, depth_of, need
from lamina.interop.foreign.mae_decoder import with_our_positions
from lamina.interop.foreign.timm_names import OWN_TITLE
from lamina.interop.load_weights import fill, other_heads
from lamina.mim import MIM
from lamina.recipes.build import build_method, resolve
from lamina.recipes.recipe import Recipe


def load_foreign_method(
    path: str | Path,
    *,
    encoder: EncoderOptions | None = None,
    decoder_heads: int | None = None,
    layers: Sequence[int] | None = None,
) -> tuple[MIM, Recipe]:
    """MAE, mmpretrain's MAE or MFF, or transformers' ViTMAE from its file or folder, in evaluation mode, and
    the recipe that builds it: on the same images and mask its loss is that of the tool that wrote the file.

    What the file does not state is taken as its authors published it, which a warning names, or is given:
    `encoder` overrides sizes, heads and statistics, `decoder_heads` the decoder's, `layers` the blocks that
    MFF fuses. The epsilon of the layer norms is the file's; the decoder of a run started from the recipe has
    timm's 1e-6.

    Raises:
        LaminaError: for files without a decoder, or that do not fit together.
    """
    foreign = read_foreign(path)
    tensors, recipe = whole_method(
        path, encoder=encoder, decoder_heads=decoder_heads, layers=layers, foreign=foreign
    )
    heads = None if encoder is None else encoder.heads
    given = {" of the decoder": decoder_heads, ", usual for width": heads, " fused": layers}
    known = tuple(words for words, value in given.items() if value is not None)
    if assumed := [line for line in foreign.assumed if not any(words in line for words in known)]:
        warnings.warn(
            f"{Path(path).name} does not state all options; assumed: {'; '.join(assumed)}", stacklevel=2
        )
    method = build_method(recipe)
    fill(method, tensors, Path(path).name)
    if foreign.eps is not None:
        set_epsilon(method, foreign.eps)
    return method.eval(), recipe


def whole_method(
    path: str | Path,
    *,
    encoder: EncoderOptions | None = None,
    decoder_heads: int | None = None,
    layers: Sequence[int] | None = None,
    foreign: Foreign | None = None,
) -> tuple[dict[str, Tensor], Recipe]:
    """The tensors of `load_foreign_method` under the names of a `MIM`, and its resolved recipe. `foreign` is
    the file, where it was read already."""
    foreign = foreign or read_foreign(path)
    name = Path(path).name
    if foreign.title == OWN_TITLE:
        raise LaminaError(f"{name} is {OWN_TITLE}; lamina.load_method opens the whole of a run")
    if not foreign.decoder:
        raise LaminaError(
            f"{name} is {foreign.title} without a decoder, so it is not a whole method; load it as an "
            "encoder (load_encoder), or start a pre-training from it with --init"
        )
    try:
        recipe = _recipe(foreign, complete_options(foreign, encoder, name), decoder_heads, layers)
        (height, width), patch = recipe.encoder.image_size, recipe.encoder.patch_size  # type: ignore[misc]
        assert patch is not None
        decoder = with_our_positions(foreign.decoder, (height // patch, width // patch))
    except LaminaError as error:
        raise LaminaError(f"{name} is {foreign.title}, but {error}") from None
    parts = {"encoder.vit": foreign.encoder, "fusion": foreign.fusion, "decoder": decoder}
    tensors = {f"{part}.{key}": tensor for part, own in parts.items() for key, tensor in own.items()}
    return tensors, recipe


def complete_options(foreign: Foreign, given: EncoderOptions | None, name: str) -> EncoderOptions:
    """The options of a file's network: as found, with each field that `given` sets to other than its default.

    Raises:
        LaminaError: where neither states which network it is, how many heads it has, or which image size
            its positions are for; and for another residual decay than that of the weights.
    """
    found = foreign.options
    if found is None:
        if given is None:
            raise LaminaError(
                f"{name} does not name its network; give its timm name with --network, or with --encoder "
                "where a pre-training starts from it"
            )
        found = _sized(foreign.encoder, given)
    elif given is not None:
        stated = found.heads if "heads" not in foreign.guessed else None
        if stated is not None and given.heads not in (None, stated):
            raise other_heads(name, stated, given.heads)
        changes = differences(EncoderOptions(), given)
        found = replace(found, **{option: getattr(given, option) for option in changes})
    if foreign.factors is not None:
        found = _with_decay(found, foreign.factors[-1][-1], name)
    if found.norm_eps is None and foreign.eps not in (None, own_epsilon(found)):
        found = replace(found, norm_eps=foreign.eps)
    if found.heads is None and found.width is not None:
        raise LaminaError(
            f"{name} does not state how many attention heads its network of width {found.width} has; give "
            "the number with --encoder.heads N (in Python: encoder=EncoderOptions(heads=N))"
        )
    fixed = any(key == "pos_embed" or key.endswith("position_bias_table") for key in foreign.encoder)
    if found.image_size is None and fixed and foreign.options is not None:
        raise LaminaError(
            f"{name} does not state the image size that its positions are for, and their number is not a "
            "square; give encoder=EncoderOptions(image_size=(height, width))"
        )
    return found


def _sized(encoder: Tensors, given: EncoderOptions) -> EncoderOptions:
    """The options, with the sizes that they leave to the named model as its tensors have them."""
    kernel = need(encoder, "patch_embed.proj.weight")
    with torch.device("meta"):
        named = build_vit(EncoderOptions(name=given.name))
    sizes: dict[str, tuple[int, Any]] = {
        "width": (int(kernel.shape[0]), named.embed_dim),
        "depth": (depth_of(encoder), len(named.blocks)),
        "patch_size": (int(kernel.shape[-1]), named.patch_embed.patch_size[1]),
    }
    own: dict[str, Any] = {
        k: v for k, (v, usual) in sizes.items() if getattr(given, k) is None and v != usual
    }
    places, usual = encoder.get("pos_embed"), named.pos_embed
    if given.image_size is None and places is not None and usual is not None:
        prefix = usual.shape[1] - named.patch_embed.num_patches
        side, patch = round(max(0, places.shape[1] - prefix) ** 0.5), int(kernel.shape[-1])
        if side * side == places.shape[1] - prefix and (side * patch,) * 2 != named.patch_embed.img_size:
            own["image_size"] = (side * patch, side * patch)
    if given.in_chans == EncoderOptions().in_chans:
        own["in_chans"] = int(kernel.shape[1])
    return replace(given, **own)


def _with_decay(found: EncoderOptions, least: float, name: str) -> EncoderOptions:
    least = round(least, 6)
    if found.residual_decay is not None and round(found.residual_decay, 6) != least:
        raise LaminaError(
            f"{name} was trained with residual_decay {least:g}, not {found.residual_decay:g}; leave "
            "residual_decay out"
        )
    return replace(found, residual_decay=least)


def _recipe(
    foreign: Foreign, encoder: EncoderOptions, heads: int | None, layers: Sequence[int] | None
) -> Recipe:
    decoder = foreign.decoder
    heads = heads or foreign.recipe_fields.get("decoder", {}).get("heads")
    if heads is None:
        width = int(need(decoder, "mask_token").shape[-1])
        raise LaminaError(
            f"it does not state how many attention heads its decoder of width {width} has; give the number "
            "with decoder_heads=N"
        )
    changes: dict[str, Any] = {group: dict(values) for group, values in foreign.recipe_fields.items()}
    changes["decoder"] = {
        "kind": "mae",
        **changes.get("decoder", {}),
        "width": int(need(decoder, "mask_token").shape[-1]),
        "depth": depth_of(decoder),
        "heads": int(heads),
    }
    fusion = changes.setdefault("fusion", {"kind": "none"})
    if layers is not None:
        fusion["layers"] = list(layers)
    if fusion["kind"] == "mff" and not fusion["layers"]:
        raise LaminaError("it does not state which blocks it fuses; give their numbers with layers=(...)")
    if fusion["kind"] == "mix" and foreign.fusion["weight"].shape[1] != depth_of(foreign.encoder) + 1:
        raise LaminaError("it mixes some of its layers, and lamina mixes all; load the encoder alone")
    start = {"mff": "mff", "mix": "crossmae"}.get(fusion["kind"], "mae")
    return resolve(merge(replace(Recipe(), name=start, encoder=replace(encoder, weight_init="mae")), changes))
