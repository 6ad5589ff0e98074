"""Methods that predict pixels."""

from __future__ import annotations

from lamina.core.weight_init import init_mae
from lamina.decoder import CrossDecoder, MAEDecoder
from lamina.encoder import Encoder, Network
from lamina.fusion import Fusion, LayerMix
from lamina.losses import l1, mse
from lamina.masking import BlockMasking, MaskingOptions, RandomMasking, build_masking
from lamina.methods.compose import Statistics, dropping, replacing, with_decoder, with_head
from lamina.mim import MIM
from lamina.targets import Pixels


def mae(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    norm_pix: bool = True,
    low_pass: float | None = None,
    residual_decay: float | None = None,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """Masked Autoencoder (He et al., CVPR 2022, arXiv 2111.06377); with a fusion, MFF on MAE.

    The decoder is initialised as MAE's, `vit` is taken as it is (`lamina.init_vit_mae` starts it afresh).
    With
    `residual_decay` the encoder's shortcuts fade to that factor (arXiv 2404.10947).
    """
    encoder = dropping(vit, mean, std, residual_decay)
    target = _pixels(encoder, norm_pix, low_pass)
    size = (decoder_width, decoder_depth, decoder_heads)
    return with_decoder(RandomMasking(mask_ratio), encoder, fusion, MAEDecoder, size, target, mse)


def pixmim(
    vit: Network,
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
    size = (decoder_width, decoder_depth, decoder_heads)
    return mae(vit, fusion, mask_ratio, *size, low_pass=low_pass, mean=mean, std=std)


def pixio(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    unit: int = 4,
    class_tokens: int = 8,
    decoder_width: int = 512,
    decoder_depth: int = 32,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """Pixio (arXiv 2512.15715): MAE that hides squares of `unit` x `unit` patches and decodes deeply.

    The class tokens are those of `vit`: a class token and `reg_tokens=7` make timm's ViT have eight.
    """
    encoder = dropping(vit, mean, std, class_tokens=class_tokens)
    target = _pixels(encoder, True, None)
    size = (decoder_width, decoder_depth, decoder_heads)
    return with_decoder(BlockMasking(mask_ratio, unit), encoder, fusion, MAEDecoder, size, target, mse)


def crossmae(
    vit: Network,
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
    encoder = dropping(vit, mean, std)
    fusion = fusion or LayerMix(encoder.width, encoder.depth, decoder_depth)
    target = _pixels(encoder, True, None)
    shape = (encoder.width, target.width, encoder.grid, encoder.n_prefix)
    size = (decoder_width, decoder_depth, decoder_heads)
    decoder = CrossDecoder(*shape, *size, predict_share, "per_block" if fusion.n_latents > 1 else "one")
    init_mae(decoder)
    return MIM(RandomMasking(mask_ratio), encoder, fusion, decoder, target, mse)


def simmim(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.6,
    unit_px: int = 32,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """SimMIM (Xie et al., CVPR 2022, arXiv 2111.09886): mask tokens in the encoder, a linear head, raw
    pixels, L1."""
    encoder = replacing(vit, mean, std)
    masking = build_masking(MaskingOptions("blocks", mask_ratio, unit_px), encoder.patch)
    return with_head(masking, encoder, fusion, _pixels(encoder, False, None), l1)


def _pixels(encoder: Encoder, norm_pix: bool, low_pass: float | None) -> Pixels:
    """The target in the encoder's own normalisation."""
    mean, std = encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()
    return Pixels(encoder.patch, mean, std, norm_pix, low_pass)
