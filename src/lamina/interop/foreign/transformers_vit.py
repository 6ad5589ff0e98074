"""Folders of transformers: ViT and ViTMAE, in the names that files have and in those of newer classes."""

from __future__ import annotations

from typing import Any

from lamina.core.errors import LaminaError
from lamina.encoder.options import EncoderOptions
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors, divide, transformer_rules
from lamina.interop.foreign.mae_decoder import published_heads

BLOCK = {
    r"attention\.(?:attention\.query|q_proj)": "attn.q",
    r"attention\.(?:attention\.key|k_proj)": "attn.k",
    r"attention\.(?:attention\.value|v_proj)": "attn.v",
    r"attention\.(?:output\.dense|o_proj)": "attn.proj",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"(?:intermediate\.dense|mlp\.fc1)": "mlp.fc1",
    r"(?:output\.dense|mlp\.fc2)": "mlp.fc2",
}
_VIT = r"(?:vit\.)?"
_RULES = [
    (_VIT + r"embeddings\.cls_token", "encoder.cls_token"),
    (_VIT + r"embeddings\.position_embeddings", "encoder.pos_embed"),
    (_VIT + r"embeddings\.patch_embeddings\.projection\.(.*)", r"encoder.patch_embed.proj.\1"),
    *transformer_rules(_VIT + r"(?:encoder\.layer|layers)", "encoder", BLOCK),
    (_VIT + r"layernorm\.(.*)", r"encoder.norm.\1"),
    (r"decoder\.mask_token", "decoder.mask_token"),
    (r"decoder\.decoder_pos_embed", "decoder.positions"),
    (r"decoder\.decoder_embed\.(.*)", r"decoder.embed.\1"),
    *transformer_rules(r"decoder\.(?:decoder_encoder\.layer|decoder_layers)", "decoder", BLOCK),
    (r"decoder\.decoder_norm\.(.*)", r"decoder.norm.\1"),
    (r"decoder\.decoder_pred\.(.*)", r"decoder.head.\1"),
]


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """A ViT or ViTMAE; `config.json` has the heads and the options of the loss."""
    config = clues.config
    parts = divide(tensors, _RULES)
    is_mae = bool(parts.decoder) or config.get("model_type") == "vit_mae"
    check_gelu(config)
    shape = parts.sizes(parts.n_patches(), config.get("image_size"))
    named = parts.plain_vit(shape["width"], config.get("num_attention_heads"))
    half = (0.5,) * shape["in_chans"]
    statistics = clues.statistics() if is_mae else clues.statistics(half, half)
    heads = config.get("decoder_num_attention_heads")
    if heads is None and parts.decoder:
        heads = published_heads(parts)
    fields: dict[str, dict[str, Any]] = {"decoder": {"heads": heads}}
    if "norm_pix_loss" in config:
        fields["target"] = {"norm_pix": bool(config["norm_pix_loss"])}
    elif is_mae:
        parts.assumed.append("targets normalised in each patch")
    if isinstance(config.get("mask_ratio"), int | float):
        fields["masking"] = {"mask_ratio": float(config["mask_ratio"])}
    title = "transformers ViTMAE" if is_mae else "transformers ViT"
    options = EncoderOptions(**named, **shape, **statistics)
    return parts.foreign(title, options, epsilon(config), recipe_fields=fields)


def epsilon(config: Any) -> float | None:
    """Epsilon of the layer norms; None where the configuration does not have it."""
    eps = config.get("layer_norm_eps")
    return None if eps is None else float(eps)


def check_gelu(config: Any) -> None:
    """Raise for another activation than GELU."""
    if config.get("hidden_act", "gelu") != "gelu":
        raise LaminaError(f"its activation is {config['hidden_act']}; lamina's ViTs have gelu alone")


FORMAT = Format(
    "transformers ViT or ViTMAE",
    (r"embeddings\.patch_embeddings\.projection\.weight", r"(?:layer|layers)\.0\.layernorm_before\.weight"),
    convert,
    _VIT,
)
