"""Folders of transformers: CLIP's vision tower, alone or beside the text tower, with its projection."""

from __future__ import annotations

import torch

from lamina.core.errors import LaminaError
from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors, divide, need, transformer_rules
from lamina.interop.foreign.transformers_vit import epsilon

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_BLOCK = {
    r"self_attn\.q_proj": "attn.q",
    r"self_attn\.k_proj": "attn.k",
    r"self_attn\.v_proj": "attn.v",
    r"self_attn\.out_proj": "attn.proj",
    r"layer_norm1": "norm1",
    r"layer_norm2": "norm2",
    r"mlp\.fc1": "mlp.fc1",
    r"mlp\.fc2": "mlp.fc2",
}
_V = r"(?:vision_model\.)?"
_RULES = [
    (_V + r"embeddings\.class_embedding", "encoder.cls_token"),
    (_V + r"embeddings\.patch_embedding\.weight", "encoder.patch_embed.proj.weight"),
    (_V + r"embeddings\.position_embedding\.weight", "encoder.pos_embed"),
    *transformer_rules(_V + r"encoder\.layers", "encoder", _BLOCK),
    (_V + r"pre_layrnorm\.(.*)", r"encoder.norm_pre.\1"),
    (_V + r"post_layernorm\.(.*)", r"encoder.norm.\1"),
    (r"visual_projection\.weight", "head.weight"),
]
_ODD = {1408: "vit_giant_patch14_clip", 1664: "vit_gigantic_patch14_clip"}  # their MLPs are not 4 D wide


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """CLIP's tower: a norm before the blocks, GELU or OpenAI's quicker one, an epsilon of 1e-5."""
    config = clues.config.get("vision_config", clues.config)
    parts = divide(tensors, _RULES)
    encoder, head = parts.encoder, parts.head
    for name, shape in (
        ("cls_token", (1, 1, -1)),
        ("pos_embed", (1, *need(encoder, "pos_embed").shape[-2:])),
    ):
        encoder[name] = need(encoder, name).reshape(shape)
    if head:
        head["bias"] = torch.zeros(len(head["weight"]))
    found = parts.sizes(parts.n_patches(), config.get("image_size"))
    act = config.get("hidden_act")
    if act is None:
        act = "quick_gelu"
        parts.assumed.append("quick_gelu, as OpenAI's")
    if act not in ("gelu", "quick_gelu"):
        raise LaminaError(f"its activation is {act}; CLIP towers of timm have gelu or quick_gelu alone")
    stem = _ODD.get(found["width"], "vit_base_patch16_clip")
    quick = "_quickgelu" if act == "quick_gelu" else ""
    if stem == "vit_giant_patch14_clip" and quick:
        raise LaminaError("it is a giant CLIP tower with quick_gelu, which timm does not have")
    options = EncoderOptions(
        name=f"{stem}{quick}_224",
        heads=parts.plain_vit(found["width"], config.get("num_attention_heads"))["heads"],
        **found,
        **clues.statistics(MEAN, STD),
    )
    return parts.foreign("transformers CLIP vision tower", options, epsilon(config) or 1e-5)


FORMAT = Format(
    "transformers CLIP vision tower",
    (r"embeddings\.class_embedding", r"embeddings\.patch_embedding\.weight", r"pre_layrnorm\.weight"),
    convert,
    _V,
)
