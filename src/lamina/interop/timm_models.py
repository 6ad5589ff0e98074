"""Models of timm: published weights fetched, and the config that timm needs beside exported weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import timm
from torch import nn

from lamina.core.errors import LaminaError
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions


def fetch_published(name: str, otherwise: str, **arguments: Any) -> nn.Module:
    """timm's model of that name with its published weights.

    Args:
        name: timm's, without `timm/`.
        otherwise: what the user can give in its place, for the error.
        arguments: further ones of `timm.create_model`.

    Raises:
        LaminaError: where the weights cannot be fetched.
    """
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # offline, unknown to the hub, gated, damaged: each library has its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LaminaError(
            f"the weights of {name} could not be loaded ({reason}); load them once while this computer has "
            f"internet access, or give {otherwise}"
        ) from error


def as_built(options: EncoderOptions, encoder: Encoder) -> EncoderOptions:
    """The options with the fields that were left to the named model, as numbers of the built encoder."""
    mean, std = (tuple(t.flatten().double().tolist()) for t in (encoder.mean, encoder.std))
    return replace(options, image_size=encoder.image_size, patch_size=encoder.patch[0], mean=mean, std=std)


def timm_config(
    options: EncoderOptions,
    encoder: Encoder,
    arguments: Mapping[str, Any],
    crop_share: float,
    *,
    pool: str,
    n_classes: int = 0,
    heads: str | Sequence[str] = "head",
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """What timm needs to build a network, laid out as in a model folder of the Hugging Face hub.

    Args:
        options: as `as_built` gives them.
        arguments: those of `timm.create_model`.
        crop_share: share of the short side that images for evaluation keep (timm's crop_pct).
        pool: timm's name of the pooling of tokens to a vector.
        heads: names of the classifier's matrices.
    """
    assert options.image_size is not None
    known = {"label_names": list(class_names)} if class_names else {}
    return {
        "architecture": options.name.split(".")[0],
        "num_classes": n_classes,
        "num_features": encoder.width,
        "global_pool": pool,
        **known,
        "model_args": dict(arguments),
        "pretrained_cfg": {
            "input_size": [encoder.in_chans, *options.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": crop_share,
            "crop_mode": "center",
            "mean": list(options.mean or ()),
            "std": list(options.std or ()),
            "num_classes": n_classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": heads,
            **known,
        },
        "made_with": {"timm": timm.__version__},
    }
