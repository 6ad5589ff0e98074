"""What lamina says of its own weights: an export in its header, a checkpoint in the recipe of its run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from lamina.encoder import EncoderOptions
from lamina.errors import LaminaError
from lamina.options import merge
from lamina.runs import Run
from lamina.train import checkpoint


class ExportFiles(NamedTuple):
    """The files of an exported encoder; `fusion` is there for a method that has one."""

    weights: Path
    config: Path
    fusion: Path


@dataclass(frozen=True)
class Metadata:
    """What is known of a network from lamina itself.

    Attributes:
        encoder: the options that build it, sizes and statistics as numbers.
        folded_residual_decay: of an export whose residual decay was folded into the weights; else None.
        is_export: whether it was written for timm, rather than kept by a run.
    """

    encoder: EncoderOptions
    folded_residual_decay: float | None = None
    is_export: bool = False


def export_files(place: Path) -> ExportFiles:
    """`x.safetensors` has `x.json` and `x.fusion.safetensors` beside it; a folder, or `model.safetensors` in
    it, has timm's names."""
    if place.suffix and place.name != "model.safetensors" and not place.is_dir():
        return ExportFiles(place, place.with_suffix(".json"), place.with_suffix(".fusion.safetensors"))
    folder = place.parent if place.name == "model.safetensors" else place
    return ExportFiles(
        *(folder / name for name in ("model.safetensors", "config.json", "fusion.safetensors"))
    )


def checkpoint_folder(path: Path) -> Path | None:
    """The folder RUN/checkpoints/step-N where `path` is that, or the weights file in it."""
    folder = path.parent if path.name == checkpoint.MODEL else path
    is_one = folder.parent.name == "checkpoints" and re.fullmatch(r"step-[0-9]+", folder.name) is not None
    return folder if is_one else None


def export_metadata(place: Path) -> Mapping[str, Any]:
    """The object "lamina" of an export, from the header of its weights, or from the JSON beside them where
    the header was lost; empty for other files.

    Raises:
        LaminaError: where the weights are no safetensors file.
    """
    weights, beside, _ = export_files(place)
    if weights.suffix != ".safetensors" or not weights.is_file():
        return {}
    try:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {}).get("lamina")
    except (SafetensorError, OSError) as error:
        raise LaminaError(f"{weights.name} is damaged or no safetensors file: {error}") from None
    try:
        if text is None and beside.is_file():
            text = beside.read_text(encoding="utf-8")
        about = json.loads(text).get("lamina") if text is not None else None
    except (OSError, ValueError, AttributeError):
        return {}
    return about if isinstance(about, dict) else {}


def metadata_of(file: Path) -> Metadata | None:
    """What lamina says of a weights file; None for a file that is not lamina's, or was taken out of its run.

    Raises:
        LaminaError: as `export_metadata`, and where what is said is no network.
    """
    folder = checkpoint_folder(file)
    if folder is not None and Run(folder.parent.parent).exists():
        return Metadata(Run(folder.parent.parent).recipe().encoder)
    about = export_metadata(file)
    if not isinstance(about.get("encoder"), dict):
        return None
    options = merge(EncoderOptions(), about["encoder"])
    return Metadata(replace(options, residual_decay=None), about.get("folded_residual_decay"), True)
