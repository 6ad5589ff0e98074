"""From options to a timm network, and from a network to an `Encoder`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.encoder.networks import Network, epsilon_of, set_epsilon
from lamina.encoder.options import EncoderOptions


def timm_arguments(options: EncoderOptions) -> dict[str, Any]:
    """What `timm.create_model` needs beside the name; drop path is no part of an architecture."""
    family = timm.model_entrypoint(options.name).__module__.rpartition(".")[2]
    arguments = {
        "num_classes": 0,
        "img_size": list(options.image_size or ()) or None,
        "patch_size": options.patch_size,
        "in_chans": options.in_chans,
        "embed_dim": options.width,
        "depth": options.depth,
        "num_heads": options.heads,
        "init_values": options.layer_scale,
        # timm moves the final norm behind the pooling for average-pooled models; MIM needs it before.
        "use_fc_norm" if family in ("eva", "beit") else "fc_norm": False,
    }
    if options.class_tokens > 1:
        arguments["num_reg_tokens" if family == "eva" else "reg_tokens"] = options.class_tokens - 1
    if family == "beit" and options.relative_positions is not None:
        kind = options.relative_positions
        arguments["use_rel_pos_bias"] = kind == "per_block"
        arguments["use_shared_rel_pos_bias"] = kind == "shared"
        arguments["use_abs_pos_emb"] = kind == "none"
    return {name: value for name, value in arguments.items() if value is not None}


def build_vit(options: EncoderOptions) -> Network:
    """The timm network that the options describe: no classifier, and a real final norm.

    Raises:
        LaminaError: where timm has no such model, or it has no such option.
    """
    if not timm.is_model(options.name):
        raise LaminaError(
            f"timm has no model named {options.name!r}; `timm.list_models('*vit*')` lists its ViTs"
        )
    _check_class_tokens(options)
    arguments = timm_arguments(options)
    try:
        vit = timm.create_model(options.name, drop_path_rate=options.drop_path, **arguments)
    except (TypeError, AssertionError) as error:
        raise LaminaError(
            f"timm cannot build {options.name} with {arguments} ({error}); change these options"
        ) from error
    if not isinstance(vit, VisionTransformer | Eva | Beit):
        raise LaminaError(
            f"{options.name} is not a VisionTransformer, Eva or Beit of timm; choose one, such as "
            "vit_small_patch16_224"
        )
    if options.relative_positions not in (None, "none") and not isinstance(vit, Beit):
        raise LaminaError(
            f"{options.name} has no relative positions; leave relative_positions out, or use a Beit such as "
            "beit_base_patch16_224"
        )
    if options.layer_scale is not None and (
        options.layer_scale < 0 or (options.layer_scale == 0 and isinstance(vit, Eva))
    ):
        raise LaminaError(
            f"{options.name} cannot have layer_scale {options.layer_scale}; give a value above 0"
        )
    if options.norm_eps is not None:
        set_epsilon(vit, options.norm_eps)
    return vit


def own_epsilon(options: EncoderOptions) -> float | None:
    """The epsilon of the layer norms of the network that the options describe, whatever its sizes."""
    if options.norm_eps is not None:
        return options.norm_eps
    with torch.device("meta"):
        return epsilon_of(build_vit(EncoderOptions(name=options.name)))


def wrap_vit(vit: Network, options: EncoderOptions) -> Encoder:
    """The `Encoder` of a network that was built, or loaded, by the options.

    Raises:
        LaminaError: where mean or std are still to be measured ("auto"), and as `Encoder` does.
    """
    if isinstance(options.mean, str) or isinstance(options.std, str):
        raise LaminaError("mean and std 'auto' are measured on the data by pretrain; give numbers here")
    return Encoder(
        vit,
        options.hide,
        options.mean,
        options.std,
        options.activation_checkpointing,
        options.residual_decay,
        options.class_tokens,
    )


def _check_class_tokens(options: EncoderOptions) -> None:
    """Refuse several class tokens for a model that they do not fit: they become timm's class token and
    registers, so it must have a class token and no registers of its own."""
    if options.class_tokens == 1:
        return
    if options.class_tokens < 1:
        raise LaminaError(f"class_tokens is {options.class_tokens}; give 1 or more")
    with torch.device("meta"):
        named = build_vit(replace(options, class_tokens=1))
    if isinstance(named, Beit) or named.cls_token is None or named.reg_token is not None:
        lack = "registers" if getattr(named, "reg_token", None) is not None else "no class token to repeat"
        lack = "relative positions for one class token" if isinstance(named, Beit) else lack
        raise LaminaError(
            f"{options.name} has {lack}, so class_tokens must be 1; or use a plain ViT such as "
            "vit_base_patch16_224"
        )
