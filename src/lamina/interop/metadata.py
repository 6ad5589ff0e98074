"""The metadata of weights that lamina wrote: in the header of an export, in the recipe of a checkpoint's run.

Also whether the files of an export belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lamina.core.config import merge
from lamina.core.plain_files import SEAL, DamagedFile
from lamina.core.records import parse_json, read_object
from lamina.core.tensor_files import read_header
from lamina.data.options import DataOptions
from lamina.encoder.options import EncoderOptions
from lamina.runs.model_spec import checkpoint_folder
from lamina.runs.run import Run

KEY = "lamina"
"""Where the configuration stands in the header of a weights file, and lamina's own part in that."""
AGAIN = "export or fetch it again, or restore it from a copy"


class ExportFiles(NamedTuple):
    """The files of an exported encoder; `fusion` is there for a method that has one."""

    weights: Path
    config: Path
    fusion: Path


@dataclass(frozen=True)
class Metadata:
    """The metadata of a network that lamina trained.

    Attributes:
        encoder: the options that build it, sizes and statistics as numbers.
        folded_residual_decay: of an export into whose weights it was folded; else None.
        is_export: whether the file was written by an export, and not by a run's checkpoint.
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


def export_metadata(place: Path) -> Mapping[str, Any]:
    """The object "lamina" of an export, from the header of its weights, or from the JSON file beside them
    where the header was lost; empty for other files.

    Raises:
        DamagedFile: where the weights are no safetensors, or their header is damaged.
    """
    files = export_files(place)
    if files.weights.suffix != ".safetensors" or not files.weights.is_file():
        return {}
    text = read_header(files.weights, links=True, mend=AGAIN).get(KEY)
    if text is not None:
        return _own_part(files.weights, text)
    try:
        about = read_object(files.config, links=True).get(KEY)
    except (FileNotFoundError, DamagedFile):
        return {}
    return about if isinstance(about, dict) else {}


def export_reading(about: Mapping[str, Any]) -> DataOptions:
    """How images are read and cropped for evaluation, by the metadata of an export; those of earlier versions
    state the crop alone."""
    reading = about.get("reading")
    crop = DataOptions(eval_crop_share=float(about["crop_share"]))
    return merge(crop, reading) if isinstance(reading, dict) else crop


def check_one_export(place: Path) -> None:
    """Check that the files of an export were written together; missing ones are not checked.

    Raises:
        DamagedFile: where the configuration or the fusion beside the weights is damaged, or of another
            export.
    """
    files, own = export_files(place), export_metadata(place)
    if not own:
        return
    beside: dict[Path, Any] = {}
    if files.config.is_file():
        beside[files.config] = read_object(files.config, links=True, mend=AGAIN).get(KEY)
    if own.get("fusion") is not None and files.fusion.is_file():
        text = read_header(files.fusion, links=True, mend=AGAIN).get(KEY)
        beside[files.fusion] = None if text is None else _own_part(files.fusion, text)
    for file, about in beside.items():
        if about is not None and about != own:
            step = about.get("step") if isinstance(about, dict) else None
            raise DamagedFile(
                file, f"it is of step {step}, and {files.weights.name} of step {own.get('step')}", AGAIN
            )


def is_sealed(place: Path) -> bool:
    """Whether an export carries a digest: lamina 0.1 wrote none, and damage to its files goes unseen."""
    return SEAL in read_header(export_files(place).weights, links=True, mend=AGAIN)


def _own_part(file: Path, text: str) -> dict[str, Any]:
    try:
        config = parse_json(text)
    except ValueError as error:
        raise DamagedFile(file, f"its header: {error}", AGAIN) from None
    about = config.get(KEY) if isinstance(config, dict) else None
    return about if isinstance(about, dict) else {}


def metadata_of(file: Path) -> Metadata | None:
    """The metadata of a weights file; None for a file that lamina did not write, or a copy outside its run.

    Raises:
        LaminaError: as `export_metadata`, and for metadata that describe no network.
    """
    folder = checkpoint_folder(file)
    if folder is not None and Run(folder.parent.parent).exists():
        return Metadata(Run(folder.parent.parent).recipe().encoder)
    about = export_metadata(file)
    if not isinstance(about.get("encoder"), dict):
        return None
    options = merge(EncoderOptions(), about["encoder"])
    return Metadata(replace(options, residual_decay=None), about.get("folded_residual_decay"), True)
