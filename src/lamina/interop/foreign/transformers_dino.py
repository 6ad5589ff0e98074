"""Folders of transformers: DINOv2, with registers and without, and DINOv3."""

from __future__ import annotations

import re

from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors, divide, need, transformer_rules
from lamina.interop.foreign.transformers_vit import BLOCK, check_gelu, epsilon

_V2 = r"(?:dinov2(?:_with_registers)?\.)?"
_V2_BLOCK = {
    **{old: new for old, new in BLOCK.items() if "norm" not in new and "mlp" not in new},
    "norm1": "norm1",
    "norm2": "norm2",
    r"mlp\.(?:fc1|weights_in)": "mlp.fc1",
    r"mlp\.(?:fc2|weights_out)": "mlp.fc2",
}
_V2_RULES = [
    (_V2 + r"embeddings\.cls_token", "encoder.cls_token"),
    (_V2 + r"embeddings\.register_tokens", "encoder.reg_token"),
    (_V2 + r"embeddings\.position_embeddings", "encoder.pos_embed"),
    (_V2 + r"embeddings\.patch_embeddings\.projection\.(.*)", r"encoder.patch_embed.proj.\1"),
    (_V2 + r"(?:encoder\.layer|layers)\.(\d+)\.layer_scale([12])\.lambda1", r"encoder.blocks.\1.ls\2.gamma"),
    *transformer_rules(_V2 + r"(?:encoder\.layer|layers)", "encoder", _V2_BLOCK),
    (_V2 + r"layernorm\.(.*)", r"encoder.norm.\1"),
]
_V3_BLOCK = {
    **{old: new for old, new in _V2_BLOCK.items() if "mlp" not in new},
    r"mlp\.gate_proj": "mlp.fc1_g",
    r"mlp\.up_proj": "mlp.fc1",
    r"mlp\.down_proj": "mlp.fc2",
}
_V3 = r"(?:dinov3_vit\.|model\.)*"
_V3_RULES = [
    (_V3 + r"embeddings\.cls_token", "encoder.cls_token"),
    (_V3 + r"embeddings\.register_tokens", "encoder.reg_token"),
    (_V3 + r"embeddings\.patch_embeddings\.(weight|bias)", r"encoder.patch_embed.proj.\1"),
    (_V3 + r"layer\.(\d+)\.layer_scale([12])\.lambda1", r"encoder.blocks.\1.gamma_\2"),
    *transformer_rules(_V3 + r"layer", "encoder", _V3_BLOCK),
    (_V3 + r"norm\.(.*)", r"encoder.norm.\1"),
]


def convert_v2(tensors: Tensors, clues: Clues) -> Foreign:
    """DINOv2; timm keeps the class token's position in the class token where there are registers."""
    config = clues.config
    check_gelu(config)
    parts = divide(tensors, _V2_RULES)
    encoder, tokens = parts.encoder, parts.n_patches()
    registers = "reg_token" in encoder
    if registers:
        place = encoder["pos_embed"]
        encoder["cls_token"] = need(encoder, "cls_token") + place[:, :1]
        encoder["pos_embed"] = place[:, 1:]
    shape = parts.sizes(tokens, config.get("image_size"))
    heads = parts.plain_vit(shape["width"], config.get("num_attention_heads"))["heads"]
    size = "giant" if any(name.endswith("mlp.weights_in.weight") for name in tensors) else "base"
    name = f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2"
    options = EncoderOptions(name=name, heads=heads, **shape, **clues.statistics())
    title = f"transformers DINOv2{' with registers' if registers else ''}"
    return parts.foreign(title, options, epsilon(config))


def convert_v3(tensors: Tensors, clues: Clues) -> Foreign:
    """DINOv3's ViT; timm has separate biases of queries and values, and none of keys."""
    config = clues.config
    check_gelu(config)
    parts = divide(tensors, _V3_RULES)
    parts.encoder = _timm_biases(parts.encoder)
    # Positions are rotary: no tensor depends on the size of the image.
    shape = parts.sizes(None, config.get("image_size"))
    heads = parts.plain_vit(shape["width"], config.get("num_attention_heads"))["heads"]
    gated = any(".mlp.fc1_g." in name for name in parts.encoder)
    name = "vit_small_plus_patch16_dinov3_qkvb" if gated else "vit_base_patch16_dinov3_qkvb"
    options = EncoderOptions(name=name, heads=heads, **shape, **clues.statistics())
    return parts.foreign("transformers DINOv3", options, epsilon(config))


def _timm_biases(encoder: Tensors) -> Tensors:
    """Separate biases of queries and values, none of keys, and both halves of a gated MLP as timm names
    them."""
    found: Tensors = {}
    gated = any(".mlp.fc1_g." in name for name in encoder)
    for name, tensor in encoder.items():
        if re.fullmatch(r"blocks\.\d+\.attn\.qkv\.bias", name):
            stem = name.removesuffix("qkv.bias")
            found[f"{stem}q_bias"], _, found[f"{stem}v_bias"] = tensor.chunk(3)
        else:
            found[name.replace(".mlp.fc1.", ".mlp.fc1_x.") if gated else name] = tensor
    return found


FORMAT_V2 = Format(
    "transformers DINOv2",
    (
        r"embeddings\.patch_embeddings\.projection\.weight",
        r"(?:layer|layers)\.0\.norm1\.weight",
        r"layer_scale1\.lambda1",
    ),
    convert_v2,
    _V2,
)
FORMAT_V3 = Format(
    "transformers DINOv3",
    (r"embeddings\.patch_embeddings\.weight", r"layer\.0\.attention\.o_proj\.weight"),
    convert_v3,
    _V3,
)
