"""Weights that others trained: each format is a file here that turns its names into timm's and lamina's.

A format is recognised by its names alone; nothing of the tool that wrote it has to be installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamina.errors import LaminaError
from lamina.interop.foreign import (
    beit,
    mae,
    mmpretrain,
    timm_names,
    transformers_clip,
    transformers_dino,
    transformers_vit,
)
from lamina.interop.foreign.described import Clues, Foreign, Format, Tensors
from lamina.interop.foreign.reading import PICKLES, read_file, read_weights, weights_in

# From the most telling names to those that several formats share.
FORMATS = (
    transformers_clip.FORMAT,
    transformers_dino.FORMAT_V3,
    transformers_dino.FORMAT_V2,
    transformers_vit.FORMAT,
    mmpretrain.FORMAT,
    beit.FORMAT,
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
    if any(name.endswith(timm_names.OWN_ANCHOR) for name in names):  # of whatever network
        return timm_names.FORMAT
    return next((known for known in FORMATS if known.fits(names)), None)


def read_foreign(path: str | Path) -> Foreign:
    """A weights file or folder, understood.

    Raises:
        LaminaError: as `read_weights`, and for files of no known format or with parts missing.
    """
    tensors, clues = read_file(path)
    return understood(tensors, clues, Path(path).name)


def understood(tensors: Tensors, clues: Clues, name: str) -> Foreign:
    """As `read_foreign`, of what was read already; `name` is for messages."""
    known = recognise(list(tensors))
    if known is None:
        raise LaminaError(
            f"{name} has no patch_embed.proj.weight; it is no ViT under timm's names, nor of another known "
            "format (`lamina inspect` says what it holds)"
        )
    try:
        return known.convert(tensors, clues)
    except LaminaError as error:
        raise LaminaError(f"{name} looks like {known.title}, but {error}") from None
