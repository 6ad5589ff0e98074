"""Methods that predict what another function or network makes of the image."""

from __future__ import annotations

from lamina.decoder import MAEDecoder, PromptDecoder
from lamina.encoder import Network
from lamina.fusion import Fusion
from lamina.losses import cosine, cross_entropy, mse
from lamina.masking import BlockwiseMasking, RandomMasking, ScoredMasking
from lamina.methods.compose import Statistics, dropping, replacing, with_decoder, with_head
from lamina.mim import MIM
from lamina.targets import HOG, Teacher, TokenIds


def maskfeat(
    vit: Network,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.4,
    min_block: int = 15,
    cell_px: int = 8,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """MaskFeat (Wei et al., CVPR 2022, arXiv 2112.09133): rectangles of mask tokens, a linear head,
    histograms of oriented gradients, L2."""
    encoder = replacing(vit, mean, std)
    target = HOG(encoder.patch, encoder.in_chans, cell=cell_px)
    return with_head(BlockwiseMasking(mask_ratio, min_block), encoder, fusion, target, mse)


def beit(
    vit: Network,
    target: TokenIds,
    fusion: Fusion | None = None,
    mask_ratio: float = 75 / 196,
    min_block: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """BEiT (Bao et al., ICLR 2022, arXiv 2106.08254): rectangles of mask tokens, a linear head, the ids of a
    discrete tokenizer, cross-entropy."""
    encoder = replacing(vit, mean, std)
    return with_head(BlockwiseMasking(mask_ratio, min_block), encoder, fusion, target, cross_entropy)


def eva(
    vit: Network,
    target: Teacher,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """EVA's target in MAE's form, as mmpretrain has it: the visible patches encoded, a teacher's features
    decoded, cosine."""
    size = (decoder_width, decoder_depth, decoder_heads)
    encoder = dropping(vit, mean, std)
    return with_decoder(RandomMasking(mask_ratio), encoder, fusion, MAEDecoder, size, target, cosine)


def eva_tokens(
    vit: Network,
    target: Teacher,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.4,
    min_block: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """EVA (Fang et al., CVPR 2023, arXiv 2211.07636): rectangles of mask tokens, a linear head, a teacher's
    features, cosine."""
    encoder = replacing(vit, mean, std)
    return with_head(BlockwiseMasking(mask_ratio, min_block), encoder, fusion, target, cosine)


def milan(
    vit: Network,
    target: Teacher,
    fusion: Fusion | None = None,
    mask_ratio: float = 0.75,
    decoder_width: int = 512,
    decoder_depth: int = 8,
    decoder_heads: int = 16,
    mean: Statistics = None,
    std: Statistics = None,
) -> MIM:
    """MILAN (Hou et al., arXiv 2208.06049): what the teacher attends to stays visible, a prompting decoder,
    the teacher's features at all patches, cosine. The target is a `Teacher(..., scores=True)`."""
    size = (decoder_width, decoder_depth, decoder_heads)
    encoder = dropping(vit, mean, std)
    return with_decoder(ScoredMasking(mask_ratio), encoder, fusion, PromptDecoder, size, target, cosine)
