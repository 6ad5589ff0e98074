"""Files under timm's own names: of timm, of lamina's checkpoints and exports, of other tools with timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor

from lamina.encoder.options import EncoderOptions
from lamina.encoder.residual_decay import Factors, shortcut_factors
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors, depth_of, need

_ANCHOR = "patch_embed.proj.weight"
OWN_PREFIXES = ("encoder.vit.", "mim.encoder.vit.")
"""Prefixes of the network that a run exports; CMAE and distillation keep two networks."""
OWN_TITLE = "a checkpoint of lamina"
_SHORTCUTS = "shortcuts"
_ARGUMENTS = {"patch_size": "patch_size", "embed_dim": "width", "depth": "depth", "num_heads": "heads"}
_NOT_ENCODER = ("decoder", "mask_token", "head", "fc_norm", "classifier", "fusion")
"""How names of parts begin that stand beside an encoder under the same prefix."""


def convert(tensors: Tensors, clues: Clues) -> Foreign:
    """The names fit several networks; the metadata of lamina or timm beside them state which it is."""
    prefix = next((own for own in OWN_PREFIXES if own + _ANCHOR in tensors), "")
    inside = {name.removeprefix(prefix): name for name in tensors if name.startswith(prefix)}
    encoder = {plain: tensors[name] for plain, name in inside.items() if not plain.startswith(_NOT_ENCODER)}
    depth_of(encoder)  # raises where there are no blocks
    assumed = []
    if clues.lamina is not None and clues.lamina.is_export and "norm.weight" not in encoder:
        width = len(need(encoder, "patch_embed.proj.weight"))
        encoder |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
        assumed.append("a final norm that scales nothing: the classifier's head reads past it")
    mark = f"{prefix.removesuffix('vit.')}{_SHORTCUTS}"
    taken = [inside[plain] for plain in encoder if plain in inside] + [
        name for name in tensors if name == mark and prefix
    ]
    names = {"encoder": tuple(taken), "": tuple(name for name in tensors if name not in set(taken))}
    own = clues.lamina
    options = own.encoder if own is not None else _options(clues.config)
    return Foreign(
        _title(prefix, clues, options),
        encoder,
        names,
        options,
        assumed=tuple(assumed),
        factors=_factors(tensors.get(mark) if prefix else None, encoder),
        folded=None if own is None else own.folded_residual_decay,
    )


def is_own(names: Sequence[str], prefix: str) -> bool:
    """Whether the names with that prefix are those of the encoder that a run of lamina exports."""
    return any(f"{prefix}{own}{_ANCHOR}" in names for own in OWN_PREFIXES)


def _title(prefix: str, clues: Clues, options: EncoderOptions | None) -> str:
    if clues.lamina is not None and clues.lamina.is_export:
        return "an export of lamina"
    if prefix:
        return OWN_TITLE
    return "a ViT under timm's names" if options is None else f"timm's {options.name}"


def _factors(shortcuts: Tensor | None, encoder: Tensors) -> Factors | None:
    """The factors of the shortcuts, which the checkpoints of a run with residual decay contain."""
    if shortcuts is None:
        return None
    return shortcut_factors(depth_of(encoder), round(float(shortcuts[-1, -1]), 6))


def _options(config: Any) -> EncoderOptions | None:
    """The network by timm's config.json; None for the file of another tool."""
    name, published = config.get("architecture"), config.get("pretrained_cfg")
    if not isinstance(name, str) or not isinstance(published, dict) or not timm.is_model(name):
        return None
    own = config.get("model_args") or {}
    size = own.get("img_size") or published.get("input_size", [3, None])[1:]
    size = (size, size) if isinstance(size, int) else tuple(size)
    given = [name for name in ("mean", "std") if isinstance(published.get(name), list)]
    statistics = {key: tuple(map(float, published[key])) for key in given}
    return EncoderOptions(
        name=name,
        image_size=None if None in size else size,
        in_chans=int(own.get("in_chans") or published.get("input_size", [3])[0]),
        weight_init="timm",
        **{ours: own[theirs] for theirs, ours in _ARGUMENTS.items() if theirs in own},
        **statistics,  # type: ignore[arg-type]
    )


FORMAT = Format(
    "a ViT under timm's names",
    (r"patch_embed\.proj\.weight",),
    convert,
    r"(?:(?:mim\.)?encoder\.vit\.)?",
)
