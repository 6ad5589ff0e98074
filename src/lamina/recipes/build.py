"""From a recipe to a method: what was left open is filled in, then the parts are put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import nn

from lamina.cmae.cmae import CMAE
from lamina.core.errors import LaminaError
from lamina.core.frozen import WeightsId
from lamina.core.interfaces import Target
from lamina.core.rng import Purpose, seed_for, torch_seed
from lamina.core.weight_init import init_mae, init_vit_mae, init_vit_simmim, zero_branches
from lamina.decoder.build import Decoder
from lamina.decoder.cross import CrossDecoder, PromptDecoder
from lamina.decoder.linear import LinearDecoder
from lamina.decoder.mae import MAEDecoder
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.networks import Network
from lamina.encoder.options import EncoderOptions, default_statistics
from lamina.fusion.build import Fusion, build_fusion
from lamina.fusion.options import resolve_layers
from lamina.losses import build_loss
from lamina.masking.build import Masking, build_masking
from lamina.mim import MIM, mim_of
from lamina.recipes.recipe import Recipe
from lamina.supervised.classifier import Supervised
from lamina.targets.hog import HOG
from lamina.targets.missing import MissingTarget
from lamina.targets.pixels import Pixels

Task = MIM | CMAE | Supervised
"""What can be trained; each has an `encoder` and a `fusion`."""


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with sizes, statistics and layers as numbers, so that it says the same for ever.

    Statistics that are to be measured ("auto") must have been by now.
    """
    options = recipe.encoder
    size = options.image_size
    if size is not None:
        if not 1 <= len(size) <= 2:
            raise LaminaError(f"image_size takes a side, or height and width, not {len(size)} numbers")
        options = replace(options, image_size=(size[0], size[-1]))
    if "auto" in (options.mean, options.std):
        raise LaminaError("mean and std 'auto' are measured on the data by pretrain; give numbers here")
    with torch.device("meta"):
        vit = build_vit(options)
    mean, std = default_statistics(options.in_chans, options.mean, options.std)  # type: ignore[arg-type]
    embed = vit.patch_embed
    height, width = embed.img_size
    if height % embed.patch_size[0] or width % embed.patch_size[1]:
        raise LaminaError(
            f"image_size {height} x {width} px is not a multiple of the patch, {embed.patch_size[0]} px"
        )
    options = replace(
        options, image_size=(height, width), patch_size=int(embed.patch_size[0]), mean=mean, std=std
    )
    _check_parts(recipe)
    fusion = recipe.fusion
    if fusion.kind == "mff":
        fusion = replace(fusion, layers=resolve_layers(fusion.layers, len(vit.blocks)))
    return replace(recipe, encoder=options, fusion=fusion)


def _check_parts(recipe: Recipe) -> None:
    """Refuse parts that make no sense together."""
    if recipe.data.auto_augment is not None and recipe.encoder.in_chans != 3:
        raise LaminaError(
            f"data.auto_augment takes RGB, and these images have {recipe.encoder.in_chans} channel(s); set "
            "it to None"
        )
    if recipe.method == "cmae" and recipe.data.second_view != "cmae":
        raise LaminaError("CMAE needs a second view of each image; set data.second_view to cmae")
    if recipe.method != "cmae" and recipe.data.second_view != "none":
        raise LaminaError(f"{recipe.name} has no use for a second view; set data.second_view to none")
    target = recipe.target.kind
    if recipe.fusion.kind == "mix" and recipe.decoder.kind != "cross":
        raise LaminaError(
            f"fusion mix gives each block of a cross decoder its own latent, but the {recipe.decoder.kind} "
            "decoder reads one; use --fusion mff, or --decoder.kind cross"
        )
    if recipe.method == "supervised":
        return
    if (target == "tokens") != (recipe.loss == "cross_entropy"):
        raise LaminaError(
            f"loss {recipe.loss} does not fit target {target}; ids of tokens take cross_entropy, and nothing "
            "else does"
        )
    if recipe.masking.kind == "scored" and target != "teacher":
        raise LaminaError(
            f"masking scored hides by a teacher's attention, and target {target} has none; use --recipe "
            "milan, or another --masking.kind"
        )


def build_task(recipe: Recipe, target: Target | None = None, teacher: nn.Module | None = None) -> Task:
    """What is trained by a resolved recipe, initialised from its seed; torch's own generator is left as it
    was.

    A target with a teacher or tokenizer in it, and the teacher of supervised training, are given
    (`lamina.interop.teachers`); without, there are all parameters and no loss.
    """
    with torch_seed(seed_for(recipe.train.seed, Purpose.INIT)):
        return compose_task(recipe, target, teacher)


def build_method(recipe: Recipe, target: Target | None = None) -> MIM:
    """`build_task` for masked image modelling: of CMAE, the pixel branch.

    Raises:
        LaminaError: for supervised training.
    """
    method = mim_of(build_task(recipe, target))
    if method is None:
        raise LaminaError(
            f"{recipe.name} hides nothing, so there is nothing to reconstruct; take a masked method"
        )
    return method


def compose_task(recipe: Recipe, target: Target | None = None, teacher: nn.Module | None = None) -> Task:
    """What is trained, initialised by torch's own generator."""
    if recipe.method == "supervised":
        encoder = _build_encoder(recipe.encoder)
        fusion = build_fusion(recipe.fusion, encoder.width, encoder.depth)
        labels = recipe.labels
        known = WeightsId(str(labels.teacher), str(labels.teacher_sha256)) if teacher is not None else None
        n, several = len(labels.classes), labels.several
        return Supervised(encoder, fusion, n, recipe.supervised, teacher, known, several=several)
    method = compose(recipe, target)
    if recipe.method == "mim":
        return method
    task = CMAE(method, recipe.cmae, recipe.decoder.width, recipe.decoder.heads)
    init_mae(task.feature_decoder)
    return task


def _build_encoder(options: EncoderOptions) -> Encoder:
    vit = build_vit(options)
    if options.weight_init == "mae":
        init_vit_mae(vit)
    elif options.weight_init == "simmim":
        init_vit_simmim(vit)
    if options.zero_branches:
        zero_branches(vit)
    return enclose(vit, options)


def enclose(vit: Network, options: EncoderOptions) -> Encoder:
    """The encoder of a network with its weights; the mask token, where there is one, is initialised."""
    encoder = wrap_vit(vit, options)
    if encoder.mask_token is not None:
        torch.nn.init.trunc_normal_(encoder.mask_token, std=0.02)
    return encoder


def compose(recipe: Recipe, target: Target | None = None) -> MIM:
    """The parts of a resolved recipe put together, initialised by torch's own generator."""
    return assemble(recipe, _build_encoder(recipe.encoder), target)


def assemble(
    recipe: Recipe,
    encoder: Encoder,
    target: Target | None = None,
    fusion: Fusion | None = None,
    masking: Masking | None = None,
) -> MIM:
    """The other parts of a recipe around an encoder; `target`, `fusion` and `masking` take the place of the
    recipe's own."""
    masking = masking or build_masking(recipe.masking, encoder.patch)
    target = target or _build_target(recipe, encoder)
    mixed = recipe.fusion.kind == "mix" if fusion is None else fusion.n_latents > 1
    decoder = _build_decoder(recipe, encoder, target.width, masking.n_visible(encoder.grid), mixed)
    # Last, so that a method with and without fusion starts from the same weights elsewhere.
    fusion = fusion or build_fusion(recipe.fusion, encoder.width, encoder.depth, decoder.n_latents)
    return MIM(masking, encoder, fusion, decoder, target, build_loss(recipe.loss))


def _build_target(recipe: Recipe, encoder: Encoder) -> Target:
    options, images = recipe.target, recipe.encoder
    if options.kind == "pixels":
        mean, std = default_statistics(encoder.in_chans, images.mean, images.std)  # type: ignore[arg-type]
        return Pixels(encoder.patch, mean, std, options.norm_pix, options.low_pass)
    if options.kind == "hog":
        cell, window = options.hog_cell_px, options.hog_gaussian_px
        return HOG(encoder.patch, encoder.in_chans, options.hog_bins, cell, window)
    if options.width is None:
        raise LaminaError(f"target {options.kind} is not known before {options.target_model} is opened")
    return MissingTarget(options.kind, options.width, encoder.patch, str(options.target_model))


def _build_decoder(recipe: Recipe, encoder: Encoder, out: int, n_visible: int, mixed: bool) -> Decoder:
    options = recipe.decoder
    if options.kind == "linear":
        return LinearDecoder(encoder.width, out, encoder.n_prefix, n_visible)
    shape = (encoder.width, out, encoder.grid, encoder.n_prefix, options.width, options.depth, options.heads)
    decoder: Decoder
    if options.kind == "cross":
        latents: Literal["one", "per_block"] = "per_block" if mixed else "one"
        decoder = CrossDecoder(*shape, options.predict_share, latents)
    else:
        decoder = (MAEDecoder if options.kind == "mae" else PromptDecoder)(*shape)
    init_mae(decoder)
    return decoder
