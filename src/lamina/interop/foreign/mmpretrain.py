"""Checkpoints of mmpretrain and mmselfsup: ViT, MAE and MFF, the fusion and the decoder among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from lamina.encoder.options import EncoderOptions
from lamina.fusion.options import resolve_layers
from lamina.interop.foreign.format import (
    Clues,
    Foreign,
    Format,
    Parts,
    Tensors,
    divide,
    need,
    transformer_rules,
)
from lamina.interop.foreign.mae_decoder import PUBLISHED_HEADS, published_heads
from lamina.interop.foreign.mmengine_config import group, settings

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
_ARCHITECTURES = {
    **dict.fromkeys(("b", "base", "deit-b", "deit-base"), 12),
    **dict.fromkeys(("l", "large", "h", "huge"), 16),
    **dict.fromkeys(("deit-s", "deit-small"), 6),
    **dict.fromkeys(("deit-t", "deit-tiny"), 3),
}
"""Attention heads of the architectures that mmpretrain names."""


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """An mmpretrain file; the configuration of the run, where the file has it, gives what no tensor's shape
    does: heads, image size, options of the loss, and which layers MFF reads."""
    parts = divide(tensors, _RULES)
    encoder, fusion = parts.encoder, parts.fusion
    model = group(settings(clues.text), "model")
    backbone = group(model, "backbone")
    tokens = need(encoder, "pos_embed").shape[1] - ("cls_token" in encoder)
    shape = parts.sizes(tokens, backbone.get("img_size"))
    named = parts.plain_vit(shape["width"], _heads(backbone))
    options = EncoderOptions(**named, **shape, **_statistics(clues))
    title, fields = "mmpretrain ViT", dict[str, dict[str, object]]()
    fields["fusion"] = {"kind": "none"}
    if parts.decoder:
        title = "mmpretrain MAE"
        fields |= _pre_training(model, parts)
    if "pool.logits" in fusion:
        title = "mmpretrain MFF"
        fusion["pool.logits"] = fusion["pool.logits"].flatten()
        layers = _layers(backbone, shape["depth"], len(fusion["pool.logits"]), parts)
        fields["fusion"] = {"kind": "mff", "layers": layers, "projection": "linear", "pooling": "average"}
    return parts.foreign(title, options, 1e-6, recipe_fields=fields)


def _heads(backbone: Mapping[str, Any]) -> int | None:
    """Attention heads of the encoder, where the configuration has them."""
    arch = backbone.get("arch")
    if isinstance(arch, Mapping):
        heads = arch.get("num_heads")
        return heads if isinstance(heads, int) else None
    return _ARCHITECTURES.get(arch) if isinstance(arch, str) else None


def _statistics(clues: Clues) -> dict[str, Any]:
    """Mean and std, which mmpretrain has on [0, 255]."""
    found = settings(clues.text)
    for own in (group(found, "model", "data_preprocessor"), group(found, "data_preprocessor")):
        mean, std = own.get("mean"), own.get("std")
        if _are_numbers(mean) and _are_numbers(std):
            return clues.statistics([m / 255 for m in mean], [s / 255 for s in std])
    return clues.statistics()


def _are_numbers(values: Any) -> TypeGuard[list[float]]:
    return isinstance(values, list) and bool(values) and all(isinstance(v, int | float) for v in values)


def _pre_training(model: Mapping[str, Any], parts: Parts) -> dict[str, dict[str, object]]:
    """Fields of a recipe of MAE and MFF: as configured, by mmpretrain's defaults where a configuration leaves
    them out, and where there is none as published."""
    backbone, neck, head = (group(model, name) for name in ("backbone", "neck", "head"))
    heads = neck.get("decoder_num_heads", PUBLISHED_HEADS) if neck else None
    if not isinstance(heads, int):
        heads = published_heads(parts)
    norm_pix = bool(head.get("norm_pix", False)) if head else True
    if not head:
        parts.assumed.append("targets normalised in each patch")
    ratio = backbone.get("mask_ratio")
    return {
        "decoder": {"heads": heads},
        "target": {"norm_pix": norm_pix},
        "masking": {"mask_ratio": float(ratio)} if isinstance(ratio, int | float) else {},
    }


def _layers(backbone: Mapping[str, Any], depth: int, n: int, parts: Parts) -> list[int]:
    """The blocks that are fused; no tensor tells which."""
    stated = backbone.get("out_indices")
    if isinstance(stated, list) and len(stated) == n and all(isinstance(i, int) for i in stated):
        return [i % depth for i in stated]
    taps = list(resolve_layers("default" if n == 6 and depth >= 6 else "all", depth))
    if len(taps) != n:
        parts.assumed.append(f"which {n} blocks are fused: unknown, give layers")
        return []
    parts.assumed.append(f"blocks {' '.join(map(str, taps))} fused")
    return taps


FORMAT = Format(
    "mmpretrain ViT, MAE or MFF",
    (r"patch_embed\.projection\.weight", r"layers\.0\.attn\.qkv\.weight"),
    convert,
    r"(?:backbone\.)?",
)
