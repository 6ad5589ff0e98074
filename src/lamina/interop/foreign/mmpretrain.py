"""Checkpoints of mmpretrain and mmselfsup: ViT, MAE and MFF, the fusion and the decoder among them."""

from __future__ import annotations

import re

from lamina.encoder import EncoderOptions
from lamina.fusion import resolve_layers
from lamina.interop.foreign.described import (
    Clues,
    Foreign,
    Format,
    Guesses,
    Tensors,
    divide,
    need,
    plain_vit,
    sizes,
    transformer_rules,
)

_BLOCK = {
    r"(?:ln|norm)1": "norm1",
    r"(?:ln|norm)2": "norm2",
    r"attn\.qkv": "attn.qkv",
    r"attn\.proj": "attn.proj",
    r"ffn\.layers\.0\.0": "mlp.fc1",
    r"ffn\.layers\.1": "mlp.fc2",
}
_RULES = [
    (r"(?:backbone\.)?(cls_token|pos_embed)", r"encoder.\1"),
    (r"(?:backbone\.)?patch_embed\.projection\.(.*)", r"encoder.patch_embed.proj.\1"),
    *transformer_rules(r"(?:backbone\.)?layers", "encoder", _BLOCK),
    (r"(?:backbone\.)?(?:ln|norm)1\.(.*)", r"encoder.norm.\1"),
    (r"(?:backbone\.)?pre_norm\.(.*)", r"encoder.norm_pre.\1"),  # of CLIP; a plain ViT refuses it
    (r"backbone\.proj_layers\.(.*)", r"fusion.projections.\1"),
    (r"backbone\.proj_weights", r"fusion.pool.logits"),
    (r"neck\.mask_token", "decoder.mask_token"),
    (r"neck\.decoder_pos_embed", "decoder.positions"),
    (r"neck\.decoder_embed\.(.*)", r"decoder.embed.\1"),
    *transformer_rules(r"neck\.decoder_blocks", "decoder", _BLOCK),
    (r"neck\.(?:decoder_norm|ln1|norm1)\.(.*)", r"decoder.norm.\1"),
    (r"neck\.decoder_pred\.(.*)", r"decoder.head.\1"),
]
_HEADS = 16  # of the decoder of every MAE and MFF in that repository


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """An mmpretrain file; the run's configuration, where it is inside, says which layers MFF reads."""
    parts, names = divide(tensors, _RULES)
    encoder, fusion = parts["encoder"], parts["fusion"]
    guesses = Guesses()
    shape = sizes(encoder, need(encoder, "pos_embed").shape[1] - ("cls_token" in encoder), guesses)
    options = EncoderOptions(**plain_vit(shape["width"], None, guesses), **shape, **clues.statistics())
    said: dict[str, dict[str, object]] = {"decoder": {"heads": _HEADS}, "fusion": {"kind": "none"}}
    title = "mmpretrain ViT"
    if parts["decoder"]:
        title = "mmpretrain MAE"
        guesses.words.append(f"{_HEADS} heads of the decoder")
        norm_pix = re.search(r"norm_pix['\"]?\s*[=:]\s*(True|False)", clues.text)
        said["target"] = {"norm_pix": norm_pix is None or norm_pix[1] == "True"}
        if norm_pix is None:
            guesses.words.append("targets normalised in each patch")
    if "pool.logits" in fusion:
        title = "mmpretrain MFF"
        fusion["pool.logits"] = fusion["pool.logits"].flatten()
        layers = _layers(clues, shape["depth"], len(fusion["pool.logits"]), guesses)
        said["fusion"] = {"kind": "mff", "layers": layers, "projection": "linear", "pooling": "average"}
    return Foreign(
        title,
        encoder,
        names,
        options,
        fusion=fusion,
        decoder=parts["decoder"],
        eps=1e-6,
        said=said,
        **guesses.said(),
    )


def _layers(clues: Clues, depth: int, n: int, guesses: Guesses) -> list[int]:
    """The blocks that are fused; no tensor tells which."""
    match = re.search(r"out_indices['\"]?\s*[=:]\s*[\[(]([-\d,\s]+)[\])]", clues.text)
    if match is not None:
        taps = [int(word) % depth for word in match[1].replace(",", " ").split()]
        if len(taps) == n:
            return taps
    taps = list(resolve_layers("default" if n == 6 and depth >= 6 else "all", depth))
    if len(taps) != n:
        guesses.words.append(f"which {n} blocks are fused: unknown, give layers")
        return []
    guesses.words.append(f"blocks {' '.join(map(str, taps))} fused")
    return taps


FORMAT = Format(
    "mmpretrain ViT, MAE or MFF",
    (r"patch_embed\.projection\.weight", r"layers\.0\.attn\.qkv\.weight"),
    convert,
)
