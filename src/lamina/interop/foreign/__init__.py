"""Weights of other tools: each format is a file here that changes its names to timm's and lamina's.

A format is recognised by the names of the tensors; the tool that wrote it need not be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lamina.core.errors import LaminaError
from lamina.interop.foreign import (
    beit,
    crossmae,
    mae,
    mmpretrain,
    timm_names,
    transformers_clip,
    transformers_dino,
    transformers_vit,
)
from lamina.interop.foreign.format import Clues, Foreign, Format, Tensors
from lamina.interop.foreign.read_file import read_file, read_weights, weights_in
from lamina.interop.foreign.unpickling import PICKLES

# In the order in which they are tried: from the most specific names to those that several formats share.
FORMATS = (
    transformers_clip.FORMAT,
    transformers_dino.FORMAT_V3,
    transformers_dino.FORMAT_V2,
    transformers_vit.FORMAT,
    mmpretrain.FORMAT,
    beit.FORMAT,
    crossmae.FORMAT,
    mae.FORMAT,
    timm_names.FORMAT,
)

__all__ = [
    "FORMATS",
    "PICKLES",
    "Clues",
    "Foreign",
    "Format",
    "Tensors",
    "read_file",
    "read_foreign",
    "read_weights",
    "recognise",
    "weights_in",
]


def recognise(names: Sequence[str]) -> Format | None:
    """The format that a file with tensors of these names has; None for one that is not known."""
    if any(timm_names.is_own(names, prefix) for prefix in timm_names.FORMAT.prefixes(names)):
        return timm_names.FORMAT  # of whatever network
    return next((known for known in FORMATS if known.fits(names)), None)


def read_foreign(path: str | Path) -> Foreign:
    """The content of a weights file or folder.

    Raises:
        LaminaError: as `read_weights`, and for files of no known format or with parts missing.
    """
    tensors, clues = read_file(path)
    return understood(tensors, clues, Path(path).name)


def understood(tensors: Tensors, clues: Clues, name: str) -> Foreign:
    """As `read_foreign`, of tensors that were read already; `name` is for messages."""
    known = recognise(list(tensors))
    if known is None:
        raise LaminaError(
            f"{name} has no patch_embed.proj.weight; it is no ViT under timm's names, nor of another known "
            "format; `lamina inspect` lists its tensors"
        )
    try:
        return _within(tensors, clues, known)
    except LaminaError as error:
        raise LaminaError(f"{name} looks like {known.title}, but {error}") from None


def _within(tensors: Tensors, clues: Clues, known: Format) -> Foreign:
    """The one network of that format, without the common prefix of its names."""
    prefix = _prefix(list(tensors), known)
    inside = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    foreign = known.convert({name: _single(tensor) for name, tensor in inside.items()}, clues)
    names = {part: tuple(prefix + name for name in own) for part, own in foreign.names.items()}
    names[""] = (*names.get("", ()), *(name for name in tensors if not name.startswith(prefix)))
    beside = f"weights under {clues.key!r}; the file also has {', '.join(clues.beside)}"
    assumed = (*foreign.assumed, *([beside] if clues.beside else []))
    return replace(foreign, names=names, assumed=assumed)


def _prefix(names: Sequence[str], known: Format) -> str:
    prefixes = known.prefixes(names)
    own = [prefix for prefix in prefixes if timm_names.is_own(names, prefix)]
    if len(prefixes) > 1 and not own:
        listed = ", ".join(prefix or "nothing" for prefix in prefixes)
        raise LaminaError(
            f"it has several networks, whose names begin with {listed}; save the tensors of one of them"
        )
    return min(own or prefixes, key=len)


def _single(tensor: Tensor) -> Tensor:
    """In single precision, as the network computes: sums of positions would otherwise be rounded twice."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
