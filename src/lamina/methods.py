"""The methods of the field, each a composition of parts around a built timm ViT."""

from __future__ import annotations

from collections.abc import Sequence

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from lamina.decoder import CrossDecoder, LinearDecoder, MAEDecoder
from lamina.encoder import Encoder, default_statistics
from lamina.fusion import Fusion, LastLayer, LayerMix
from lamina.init import init_mae
from lamina.losses import l1, mse
from lamina.masking import MaskingOptions, RandomMasking, build_masking
from lamina.mim import MIM
from lamina.targets import Pixels

Statistics = Sequence[float] | None


def mae(
    vit: VisionTransformer | Eva,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    norm_pix: bool = True,
    low_pass: float | None = None,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """Masked Autoencoder (He et al., CVPR 2022, arXiv 2111.06377); with a fusion, MFF on MAE.

    The decoder is initialised as MAE's, `vit` is taken as it is (`lamina.init_vit_mae` starts it afresh).
    """
    mean, std = default_statistics(vit.patch_embed.proj.in_channels, mean, std)
    encoder = Encoder(vit, "drop", mean, std)
    target = Pixels(encoder.patch, mean, std, norm_pix, low_pass)
    decoder = MAEDecoder(
        encoder.width,
        target.width,
        encoder.grid,
        encoder.n_prefix,
        decoder_width,
        decoder_depth,
        decoder_heads,
    )
    init_mae(decoder)
    return MIM(RandomMasking(mask_ratio), encoder, fusion or LastLayer(encoder.depth), decoder, target, mse)


def pixmim(
    vit: VisionTransformer | Eva,
    fusion: Fusion | None = None,
    low_pass: float = 40 / 112,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """PixMIM (Liu et al., TMLR 2024, arXiv 2303.02416): MAE on a low-passed target; its simple resized crop
    belongs to the recipe."""
    return mae(
        vit, fusion, mask_ratio, decoder_width, decoder_depth, decoder_heads, True, low_pass, mean, std
    )


def crossmae(
    vit: VisionTransformer | Eva,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    predict_share: float = 0.25,
    decoder_width: int = 512,
    decoder_depth: int = 12,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """CrossMAE (Fu et al., TMLR 2025, arXiv 2401.14391): a decoder of cross-attention alone for a share of
    all patches, each of its blocks reading its own mix of layers; another fusion is read by all of them."""
    mean, std = default_statistics(vit.patch_embed.proj.in_channels, mean, std)
    encoder = Encoder(vit, "drop", mean, std)
    fusion = fusion or LayerMix(encoder.width, encoder.depth, decoder_depth)
    target = Pixels(encoder.patch, mean, std)
    decoder = CrossDecoder(
        encoder.width,
        target.width,
        encoder.grid,
        encoder.n_prefix,
        decoder_width,
        decoder_depth,
        decoder_heads,
        predict_share,
        "per_block" if fusion.n_latents > 1 else "one",
    )
    init_mae(decoder)
    return MIM(RandomMasking(mask_ratio), encoder, fusion, decoder, target, mse)


def simmim(
    vit: VisionTransformer | Eva,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.6,
    unit_px: int = 32,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """SimMIM's objective (Xie et al., CVPR 2022, arXiv 2111.09886) on a plain ViT: mask tokens in the
    encoder, a linear head, raw pixels, L1."""
    mean, std = default_statistics(vit.patch_embed.proj.in_channels, mean, std)
    encoder = Encoder(vit, "replace", mean, std)
    assert encoder.mask_token is not None
    nn.init.trunc_normal_(encoder.mask_token, std=0.02)
    masking = build_masking(MaskingOptions("blocks", mask_ratio, unit_px), encoder.patch)
    target = Pixels(encoder.patch, mean, std, norm_pix=False)
    decoder = LinearDecoder(encoder.width, target.width, encoder.n_prefix, masking.n_visible(encoder.grid))
    return MIM(masking, encoder, fusion or LastLayer(encoder.depth), decoder, target, l1)
