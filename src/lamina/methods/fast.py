"""fast and fast-mff: masked autoencoding with a small decoder that reads by cross-attention alone."""

from __future__ import annotations

from dataclasses import replace

from lamina.decoder.options import DecoderOptions
from lamina.methods.mae import mae_published, mae_recipe
from lamina.recipes.recipe import Recipe, Size


def fast_decoder(size: Size) -> DecoderOptions:
    """Half as many blocks as MAE's decoder, of CrossMAE's kind and width, for a quarter of all patches."""
    width, heads = (256, 8) if size in ("ti", "s") else (512, 16)
    return DecoderOptions(kind="cross", width=width, depth=4, heads=heads, predict_share=0.25)


def fast_sized(size: Size = "b") -> Recipe:
    """MAE's encoder, target and published schedule with the decoder of `fast`, for ViT-Ti, S, B, L and H.

    lamina pretrain imagenet/train --out runs/fast-b --recipe fast-b

    The recipe is lamina's own and was not published: the decoder is CrossMAE's (arXiv 2401.14391) with 4
    blocks in place of 12, and all of its blocks read one latent, the output of the last encoder block.
    """
    return replace(mae_published(size), name=f"fast-{size}", decoder=fast_decoder(size))


def fast_recipe(size: Size = "s") -> Recipe:
    """The shortest time to a trained encoder: a step costs a quarter of MAE's for ViT-S.

    lamina pretrain photos/ --out runs/fast --recipe fast

    A decoder of 4 blocks whose mask tokens attend to the encoder's output and not to each other predicts a
    quarter of all patches, drawn among the hidden ones; encoder, target and schedule are those of `mae`.
    The decoder reads the last block alone; with MFF it is `fast-mff`.
    """
    plain = mae_recipe(size)
    return replace(
        plain,
        name="fast",
        decoder=fast_decoder(size),
        fusion=replace(plain.fusion, kind="none", logit_lr_scale=1.0),
    )


def fast_mff_sized(size: Size = "b") -> Recipe:
    """`fast` of that size with MFF (arXiv 2308.00261): one fusion of several encoder blocks, which all
    decoder blocks read.

    lamina pretrain imagenet/train --out runs/fast-mff-b --recipe fast-mff-b
    """
    recipe = fast_sized(size)
    return replace(recipe, name=f"fast-mff-{size}", fusion=replace(recipe.fusion, kind="mff"))


def fast_mff_recipe(size: Size = "s") -> Recipe:
    """`fast` with MFF: one fusion of several encoder blocks, which all decoder blocks read.

    lamina pretrain photos/ --out runs/fast-mff --recipe fast-mff

    The fusion's logits learn 10 times as fast as the rest, as in `mae`.
    """
    return replace(mae_recipe(size), name="fast-mff", decoder=fast_decoder(size))
